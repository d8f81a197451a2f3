/* One pass of hinge descent over sparse rows: the limit that tests/benchmarks/linear_models.py prints beside ours.
   ahead: so many rows before its turn a row is asked for from memory; 0: never.  Gives the sum of losses. */
#include <stdint.h>

double walk(const int64_t *start, const uint32_t *columns, const float *value, const int64_t *second,
            const uint32_t *order, int64_t count, float *weights, float *bias, const float *shrink, float rate,
            int64_t ahead) {
    double total = 0.0;
    for (int64_t at = 0; at < count; at++) {
        if (ahead && at + ahead < count) {
            const int64_t next = order[at + ahead];
            for (int64_t k = start[next]; k < start[next + 1]; k += 16) {
                __builtin_prefetch(columns + k);
                __builtin_prefetch(value + k);
            }
        }
        const int64_t row = order[at], first = start[row], last = start[row + 1];
        float score = *bias;
        for (int64_t k = first; k < last; k++) score += value[k] * weights[columns[k]];
        const float sign = second[row + 1] > second[row] ? 1.0f : -1.0f;
        const float margin = sign * score;
        if (margin < 1.0f) {
            total += 1.0f - margin;
            const float by = rate * sign;
            for (int64_t k = first; k < last; k++) {
                const uint32_t i = columns[k];
                weights[i] = shrink[i] * (weights[i] + by * value[k]);
            }
            *bias += 0.01f * by;
        } else {
            for (int64_t k = first; k < last; k++) weights[columns[k]] *= shrink[columns[k]];
        }
    }
    return total;
}
