"""What a figure is, and what a page's key says of it."""

PROVENANCE = {
    "counted": "counted here in the program that XLA compiled",
    "modelled": "predicted by the cycle model",
    "measured": "measured on the machine",
    "compiler": "the compiler's own estimate or count",
    "datasheet": "from the chip's datasheet",
    "estimate": "estimated where no datasheet says",
    "published": "published by others, who measured it",
    "user": "given by the user",
}
