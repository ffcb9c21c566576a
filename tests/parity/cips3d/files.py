"""Cases of checkpoints."""

import torch

from tests.parity.cips3d.build import build_poses, build_renderer, published_images
from tests.parity.cips3d.draws import recorded, replay
from tests.parity.harness import Case
from tests.parity.published import same_tensors
from tests.tiny import named
from zoo.cips3d import convert as cips3d
from zoo.cips3d.convert import DISCRIMINATOR, GENERATOR
from zoo.cips3d.model import Latent
from zoo.weights.convert import convert_network
from zoo.weights.names import to_published
from zoo.weights.read import Place, read


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """Files of a training run: every tensor, and what is drawn with them once they are bundles."""
    options = case.config["render_kwargs"]
    (block,) = {name.removesuffix(".z_nerf") for name in case.inputs if name.endswith(".z_nerf")}
    latent = Latent(case.inputs[f"{block}.z_nerf"], case.inputs[f"{block}.z_inr"])
    depths = named("zoo.render.JitteredUniform", near=options["ray_start"], far=options["ray_end"], samples=2)
    experiment = named(
        "zoo.cips3d.Generator",
        field=named("zoo.cips3d.FilmSiren"),
        inr=named("zoo.cips3d.Inr"),
        mapping=named("zoo.cips3d.Mapping"),
        renderer=named("zoo.render.VolumeRenderer", depths=depths),
        poses=named("zoo.render.Orbit", fov_deg=options["fov"]),
    )
    (folder,) = {path.parent for path in case.folder.rglob("generator.pth")}
    found = {}

    def there(*names: str) -> list[str]:
        return [name for name in names if (folder / name).is_file()]

    for name, weights in (("generator", "raw"), ("G_ema", "ema")):
        if not there(f"{name}.pth"):
            continue
        place = Place(folder / f"{name}.pth")
        expected = torch.load(place.path, weights_only=True)
        for source in there(f"{name}.pth", f"{name}_model.pth", "generator.pth"):
            other = Place(folder / source)
            made = convert_network(cips3d, other, read(other), experiment, weights)
            back = to_published(made.network.state_dict() | made.unused, GENERATOR)
            assert same_tensors(back, expected)
        used = case.recast(made.network)
        used.renderer, used.poses = build_renderer(options), build_poses(options)
        numbers = replay(recorded(case, block), options["img_size"])
        camera = used.cameras(len(latent.z_shape), numbers)
        rendered = used(latent, camera, resolution=options["img_size"], draws=numbers)
        found[name] = published_images(rendered, options)
        case.compare(f"{name}.img", found[name])
        assert made.card["iterations"] == torch.load(folder / "state_dict.pth", weights_only=False)["step"]
    assert len(found) == 1 or not torch.allclose(*found.values(), atol=1e-3)

    if not there("discriminator.pth"):
        return
    expected = torch.load(folder / "discriminator.pth", weights_only=True)
    for source in there("discriminator.pth", "discriminator_model.pth"):
        other = Place(folder / source)
        made = convert_network(cips3d, other, read(other))
        back = to_published(made.network.state_dict() | made.unused, DISCRIMINATOR)
        assert same_tensors(back, expected)
    discriminator, image = case.recast(made.network), case.inputs["img"]
    case.scores("discriminator.main_aux", discriminator(torch.cat([image, image]), auxiliary=True).scores)
