"""Cases of checkpoints."""

from dataclasses import asdict

import torch

from tests.parity.giraffe.build import UPSAMPLING, build_boxes, build_poses, camera_of, latent_of
from tests.parity.harness import Case
from tests.parity.published import same_tensors
from tests.tiny import named
from zoo.giraffe import convert as giraffe
from zoo.giraffe.convert import GENERATOR
from zoo.weights.convert import convert_network
from zoo.weights.names import to_published
from zoo.weights.read import Place, read


def as_config(config: dict) -> dict:
    """The experiment of our generator for the published constructors' arguments."""

    def field(of: dict) -> dict:
        downscale = of.get("downscale_p_by", 2.0)
        octaves = {"positions": of.get("n_freq_posenc", 10), "directions": of.get("n_freq_posenc_views", 4)}
        waves = {
            name: named("zoo.giraffe.Octaves", octaves=count, downscale=downscale) for name, count in octaves.items()
        }
        waves |= {} if of.get("use_viewdirs", True) else {"directions": None}
        options = {"skips": of.get("skips", [4]), "sigmoid": of.get("final_sigmoid_activation", False)}
        return named("zoo.giraffe.Field", **waves, **options)

    of, render = config["generator_kwargs"], config["neural_renderer_kwargs"]
    near, far = of.get("depth_range", [0.5, 6.0])
    depths = named("zoo.giraffe.StratifiedDepths", near=near, far=far, samples=of.get("n_ray_samples", 64))
    neural_renderer = named(
        "zoo.giraffe.NeuralRenderer",
        skips=render.get("use_rgb_skip", True),
        norm=render.get("use_norm", False),
        sigmoid=render.get("final_actvn", True),
        up={"class_path": f"zoo.giraffe.{UPSAMPLING[render.get('upsample_feat', 'nn')].__name__}"},
        colour_up={"class_path": f"zoo.giraffe.{UPSAMPLING[render.get('upsample_rgb', 'bilinear')].__name__}"},
    )
    return named(
        "zoo.giraffe.Generator",
        objects=field(config["decoder_kwargs"]),
        background=field(config["background_generator_kwargs"]),
        boxes=named("zoo.giraffe.BoxPrior", **asdict(build_boxes(config["bounding_box_generator_kwargs"]))),
        poses=named("zoo.giraffe.ScenePoses", **asdict(build_poses(of))),
        renderer=named("zoo.giraffe.SceneRenderer", depths=depths),
        neural_renderer=neural_renderer,
        compose=f"zoo.giraffe.{'densest' if of.get('use_max_composition') else 'weighted'}",
        feature_resolution=of.get("resolution_vol", 16),
    )


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """Files of training runs: every tensor, and what is drawn with them."""
    latent = latent_of(case.inputs)
    camera, farthest = camera_of(case.inputs["camera_mat"], case.inputs["world_mat"])
    for name in case.info["files"]:
        place = Place(case.folder / name)
        contents = read(place)
        assert giraffe.part(contents) == "generator"
        for weights, prefix in list(giraffe.WEIGHTS.items())[:2]:
            made = convert_network(giraffe, place, contents, as_config(case.config), weights)
            back = to_published(made.network.state_dict() | made.unused, GENERATOR)
            assert same_tensors(back, case.published(prefix))
            assert made.card["iterations"] == case.info["layout"]["it"]
            image = case.recast(made.network).render(latent, camera, farthest=farthest).image
            case.compare(f"{prefix}image", (image + 1) / 2)
        for optimizer in ("optimizer", "optimizer_d"):
            moments = contents.value[optimizer]["state"]
            norms = [moments[i]["square_avg"].double().norm() for i in sorted(moments)]
            case.each_relative(f"{optimizer}.square_avg_norms", torch.stack(norms), 1e-5)
