"""The published families of Caffe nets, written as prototxts with fillers, `thin` times narrower than they were."""

from __future__ import annotations

from collections.abc import Iterator

FILLED = 'weight_filler { type: "msra" }'


class Text:
    """Layers one after another; each method returns its top."""

    def __init__(self, name: str, size: int, head: str = "") -> None:
        self.lines = [
            head or f'name: "{name}" input: "data" input_dim: 1 input_dim: 3 input_dim: {size} input_dim: {size}'
        ]
        self.count = 0

    def add(self, kind: str, bottoms: str, body: str = "", top: str = "") -> str:
        self.count += 1
        out = top or f"{kind.lower()}{self.count}"
        reads = " ".join(f'bottom: "{name}"' for name in bottoms.split())
        self.lines.append(f'layer {{ name: "l{self.count}" type: "{kind}" {reads} top: "{out}" {body} }}')
        return out

    def conv(
        self, x: str, width: int, kernel: int, stride: int = 1, pad: int = 0, group: int = 1, more: str = ""
    ) -> str:
        body = f"num_output: {width} kernel_size: {kernel} stride: {stride} pad: {pad} group: {group} {more} {FILLED}"
        return self.add("Convolution", x, f"convolution_param {{ {body} }}")

    def relu(self, x: str) -> str:
        return self.add("ReLU", x, top=x)

    def pool(self, x: str, kernel: int = 2, stride: int = 2, pad: int = 0, pool: str = "MAX") -> str:
        return self.add(
            "Pooling", x, f"pooling_param {{ pool: {pool} kernel_size: {kernel} stride: {stride} pad: {pad} }}"
        )

    def whole(self, x: str) -> str:
        return self.add("Pooling", x, "pooling_param { pool: AVE global_pooling: true }")

    def full(self, x: str, width: int) -> str:
        return self.add("InnerProduct", x, f"inner_product_param {{ num_output: {width} {FILLED} }}")

    def normal(self, x: str) -> str:
        self.add("BatchNorm", x, "batch_norm_param { use_global_stats: false }", top=x)
        return self.add("Scale", x, "scale_param { bias_term: true }", top=x)

    def drop(self, x: str) -> str:
        return self.add("Dropout", x, "dropout_param { dropout_ratio: 0.5 }", top=x)

    def done(self, x: str) -> str:
        self.add("Softmax", x, top="prob")
        return "\n".join(self.lines)


def alexnet(thin: int) -> str:
    """AlexNet: LRN before pooling, groups of two (CaffeNet has them the other way round; it is a golden net)."""
    t = Text("AlexNet", 227)
    x = t.relu(t.conv("data", 96 // thin, 11, 4))
    x = t.pool(t.add("LRN", x, "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"), 3)
    x = t.relu(t.conv(x, 256 // thin, 5, 1, 2, 2))
    x = t.pool(t.add("LRN", x, "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"), 3)
    for width, group in ((384, 1), (384, 2), (256, 2)):
        x = t.relu(t.conv(x, width // thin, 3, 1, 1, group))
    x = t.pool(x, 3)
    for _ in range(2):
        x = t.drop(t.relu(t.full(x, 4096 // thin)))
    return t.done(t.full(x, 1000))


def vgg16(thin: int) -> str:
    t = Text("VGG_ILSVRC_16_layers", 224)
    x = "data"
    for depth, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(depth):
            x = t.relu(t.conv(x, width // thin, 3, 1, 1))
        x = t.pool(x)
    for _ in range(2):
        x = t.drop(t.relu(t.full(x, 4096 // thin)))
    return t.done(t.full(x, 1000))


def resnet18(thin: int) -> str:
    t = Text("ResNet-18", 224)
    x = t.pool(t.relu(t.normal(t.conv("data", 64 // thin, 7, 2, 3, more="bias_term: false"))), 3)
    for width, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        short = (
            x if stride == 1 and width != 64 else t.normal(t.conv(x, width // thin, 1, stride, more="bias_term: false"))
        )
        y = t.relu(t.normal(t.conv(x, width // thin, 3, stride, 1, more="bias_term: false")))
        y = t.normal(t.conv(y, width // thin, 3, 1, 1, more="bias_term: false"))
        x = t.relu(t.add("Eltwise", f"{short} {y}"))
    return t.done(t.full(t.whole(x), 1000))


def squeezenet(thin: int) -> str:
    """SqueezeNet 1.1."""
    t = Text("SqueezeNet", 227)
    x = t.pool(t.relu(t.conv("data", 64 // thin, 3, 2)), 3)
    for place, (squeeze, expand) in enumerate(
        ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
    ):
        s = t.relu(t.conv(x, squeeze // thin, 1))
        one, three = t.relu(t.conv(s, expand // thin, 1)), t.relu(t.conv(s, expand // thin, 3, 1, 1))
        x = t.add("Concat", f"{one} {three}")
        x = t.pool(x, 3) if place in (1, 3) else x
    return t.done(t.whole(t.relu(t.conv(t.drop(x), 1000, 1))))


def mobilenet(thin: int) -> str:
    """MobileNet v1: a convolution a channel, as groups."""
    t = Text("MobileNet", 224)
    x, width = t.relu(t.normal(t.conv("data", 32 // thin, 3, 2, 1, more="bias_term: false"))), 32 // thin
    for out, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (1024, 2), (1024, 1)):
        x = t.relu(t.normal(t.conv(x, width, 3, stride, 1, width, "bias_term: false engine: CAFFE")))
        width = out // thin
        x = t.relu(t.normal(t.conv(x, width, 1, more="bias_term: false")))
    return t.done(t.conv(t.whole(x), 1000, 1))


def fcn8s(thin: int) -> str:
    """FCN-8s: pad of 100, scores of three depths enlarged by Deconvolution, cropped and added."""
    t = Text("FCN8s", 64)
    x, kept, pad = "data", [], 100
    for depth, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(depth):
            x, pad = t.relu(t.conv(x, width // thin, 3, 1, pad)), 1
        x = t.pool(x)
        kept.append(x)
    x = t.drop(t.relu(t.conv(x, 4096 // thin, 7)))
    up = t.conv(t.drop(t.relu(t.conv(x, 4096 // thin, 1))), 21, 1)
    for pooled, offset, kernel in ((kept[3], 5, 4), (kept[2], 9, 4)):
        up = t.add("Deconvolution", up, _bilinear(kernel, 2))
        score = t.add("Crop", f"{t.conv(pooled, 21, 1)} {up}", f"crop_param {{ axis: 2 offset: {offset} }}")
        up = t.add("Eltwise", f"{up} {score}", "eltwise_param { operation: SUM }")
    up = t.add("Deconvolution", up, _bilinear(16, 8))
    return t.done(t.add("Crop", f"{up} data", "crop_param { axis: 2 offset: 31 }"))


def _bilinear(kernel: int, stride: int) -> str:
    body = (
        f"num_output: 21 bias_term: false kernel_size: {kernel} stride: {stride} weight_filler {{ type: 'bilinear' }}"
    )
    return f"param {{ lr_mult: 0 }} convolution_param {{ group: 21 {body} }}"


def densenet(thin: int) -> str:
    """DenseNet: normalised and activated before each convolution, joined to all before it."""
    t = Text("DenseNet", 224)
    x = t.pool(t.relu(t.normal(t.conv("data", 64 // thin, 7, 2, 3))), 3)
    for block in range(3):
        for _ in range(3):
            y = t.relu(t.add("Scale", t.add("BatchNorm", x), "scale_param { bias_term: true }"))
            y = t.conv(t.relu(t.normal(t.conv(y, 128 // thin, 1))), 32 // thin, 3, 1, 1)
            x = t.add("Concat", f"{x} {t.drop(y)}", "concat_param { axis: 1 }")
        x = t.pool(t.conv(x, 64 // thin, 1), pool="AVE") if block < 2 else x
    return t.done(t.conv(t.whole(x), 1000, 1))


def network_in_network(thin: int) -> str:
    t = Text("nin_imagenet", 224)
    x = "data"
    for width, kernel, stride, pad in ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1), (1024, 3, 1, 1)):
        for k, s, p in ((kernel, stride, pad), (1, 1, 0), (1, 1, 0)):
            x = t.relu(t.conv(x, width // thin, k, s, p))
        x = t.pool(x, 3)
    return t.done(t.whole(x))


def sphereface(thin: int) -> str:
    """A face net: PReLU, residuals by Eltwise, a feature from InnerProduct, its length made one by plain layers."""
    t = Text("SphereFace", 112)
    x = "data"
    for width in (64, 128, 256, 512):
        x = t.add("PReLU", t.conv(x, width // thin, 3, 2, 1), top="")
        y = t.add("PReLU", t.conv(x, width // thin, 3, 1, 1))
        x = t.add("Eltwise", f"{x} {t.add('PReLU', t.conv(y, width // thin, 3, 1, 1))}")
    x = t.full(x, 64)
    length = t.add("Reduction", x, "reduction_param { operation: SUMSQ axis: 1 }")
    length = t.add("Power", length, "power_param { power: -0.5 shift: 1e-8 }")
    t.add("Scale", f"{x} {length}", "scale_param { axis: 0 }", top="unit")
    return t.done("unit")


FAMILIES = {
    "alexnet": alexnet, "vgg16": vgg16, "resnet18": resnet18, "squeezenet": squeezenet, "mobilenet": mobilenet,
    "fcn8s": fcn8s, "densenet": densenet, "network_in_network": network_in_network, "sphereface": sphereface,
}  # fmt: skip

_OLD = {"Convolution": "CONVOLUTION", "ReLU": "RELU", "Pooling": "POOLING", "LRN": "LRN", "Concat": "CONCAT",
        "Dropout": "DROPOUT", "InnerProduct": "INNER_PRODUCT", "Softmax": "SOFTMAX"}  # fmt: skip


def as_v1(text: str) -> Iterator[str]:
    """A net of the new form in V1's words: `layers`, types as enums, each layer's rates beside it, a legacy input."""
    for line in text.splitlines():
        if 'type: "Input"' in line:
            sizes = line.split("shape {")[1].split("}")[0].replace("dim:", "").split()
            yield 'input: "data" ' + " ".join(f"input_dim: {size}" for size in sizes)
            continue
        for new, old in _OLD.items():
            if f'type: "{new}"' in line:
                line = line.replace(f'type: "{new}"', f"type: {old}").replace("layer {", "layers {", 1)
                if "convolution_param" in line or "inner_product_param" in line:
                    line = line.rstrip("} ") + " } blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0 }"
        yield line
