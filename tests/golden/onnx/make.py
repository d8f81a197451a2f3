"""Makes the models beside it, once, in a venv of its own: pip install torch timm open_clip_torch onnx onnxscript

Backbones of today in small, as their owners' classes make and torch.onnx writes them; weights from a seed.  The .npz
holds what the model was fed (`image`) and what torch gives for it (`feature`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

HERE = Path(__file__).parent


class FromBytes(nn.Module):
    """uint8, channels last, in; the normalising is within, as TensorFlow's exports often have it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image.permute(0, 3, 1, 2).float() / 127.5 - 1)


def backbones() -> dict[str, tuple[nn.Module, dict[str, object]]]:
    """Name -> model, how it is written."""
    import open_clip.model
    import timm.models
    from timm.models.resnet import Bottleneck, ResNet

    small = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "num_heads": 4, "num_classes": 0}
    resnet = ResNet(Bottleneck, (1, 1, 1, 1), num_classes=0, channels=(4, 8, 12, 16), stem_width=8)
    vision = timm.models.VisionTransformer(**small, depth=2)
    dino = timm.models.VisionTransformer(
        **small, depth=2, init_values=1e-1, reg_tokens=4, no_embed_class=True, dynamic_img_size=True
    )
    convnext = timm.models.ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 16, 16, 32), num_classes=0)
    clip = open_clip.model.VisionTransformer(32, 8, 32, 2, 4, 4.0, output_dim=24)
    old = {"dynamo": False}
    return {
        "resnet_opset11": (resnet, {**old, "opset_version": 11}),
        "resnet_bytes_last_opset13": (FromBytes(resnet), {**old, "opset_version": 13}),
        "vit_opset18_outside": (vision, {"dynamo": True, "opset_version": 18}),
        "vit_opset14_of_4": (vision, {**old, "opset_version": 14, "fixed": True}),
        "dinov2_opset17_half": (dino, {**old, "opset_version": 17}),
        "convnext_opset16": (convnext, {**old, "opset_version": 16}),
        "clip_opset18": (clip, {"dynamo": True, "opset_version": 18}),
    }


def main() -> None:
    torch.manual_seed(0)
    for name, (net, how) in backbones().items():
        for parameter in net.parameters():
            nn.init.normal_(parameter, 0.02, 0.2 if parameter.ndim > 1 else 0.5)
            if "half" in name:
                parameter.data = parameter.half().float()
        net.eval()
        image = torch.randn(4, 3, 32, 32)
        if "bytes" in name:
            image = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
        with torch.no_grad():
            write(name, net, image, dict(how))
            feature = net(image)
        np.savez_compressed(HERE / f"{name}.npz", image=image.numpy(), feature=feature.numpy())


def write(name: str, net: nn.Module, image: Tensor, how: dict[str, object]) -> None:
    path = HERE / f"{name}.onnx"
    names = {"input_names": ["image"], "output_names": ["feature"]}
    if how.pop("fixed", False):
        torch.onnx.export(net, (image,), path, **names, **how)
    elif how["dynamo"]:
        torch.onnx.export(net, (image,), path, **names, dynamic_shapes=({0: torch.export.Dim("batch")},), **how)
    else:
        torch.onnx.export(
            net, (image,), path, **names, dynamic_axes={n: {0: "batch"} for n in ("image", "feature")}, **how
        )
    model = onnx.load(path)
    path.with_name(f"{name}.onnx.data").unlink(missing_ok=True)
    plain(model)
    if "half" in name:
        halve(model)
    onnx.save(model, path, save_as_external_data="outside" in name, location=f"{name}.onnx.data", size_threshold=512)
    for written in HERE.glob(f"{name}.onnx*"):
        written.chmod(0o644)


def plain(model: onnx.ModelProto) -> None:
    """Without where in whose source each node came from."""
    del model.metadata_props[:]
    graph = model.graph
    del graph.metadata_props[:]
    graph.doc_string = ""
    for part in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.value_info[:]


def halve(model: onnx.ModelProto) -> None:
    """Weights in fp16, each widened before it is used, as the tools that make models smaller leave them."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 64:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


if __name__ == "__main__":
    main()
