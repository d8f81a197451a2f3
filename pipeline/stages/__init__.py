"""The four stages: `plan` says what there is to do, `perform` does one task of it."""
