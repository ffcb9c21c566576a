"""Cases of images: with everything on the way from their rays, with gradients of some rays, with truncated styles."""

import math
import re

import torch
from torch import Tensor

from tests.parity.cips3d.build import (
    build_poses,
    build_renderer,
    frozen_parts,
    load_generator,
    looking,
    published_images,
)
from tests.parity.cips3d.draws import Recorded, recorded, replay, untold_noise
from tests.parity.harness import Case
from tests.parity.published import gradients_of, hearing
from tests.parity.replay import Followed
from zoo.cips3d.convert import GENERATOR
from zoo.cips3d.extras import swap_layers
from zoo.cips3d.model import Generator, Latent, Styles
from zoo.render import Camera, FixedPoses, Importance, Rendered, clamp_pitch


@torch.no_grad()
def render(case: Case) -> None:
    generator = load_generator(case, case.config["generator"], case.config["generator_class"])
    for block, scenario in case.config["scenarios"].items():
        options = scenario["kwargs"]
        if options.get("grad_points") is not None:
            raise ValueError(
                "Rendering without gradients knows no grad_points; such a case is of the kind partial_grad."
            )
        generator.renderer, generator.poses = build_renderer(options), build_poses(options)
        generator.renderer.fine = fine = generator.renderer.fine and followed(case, block, generator.renderer.fine)
        generator.chunk = 10**9
        latent = Latent(case.inputs[f"{block}.z_nerf"], case.inputs[f"{block}.z_inr"])
        size, count, staged = options["img_size"], len(latent.z_shape), bool(options.get("forward_points"))
        psi, numbers = options.get("psi", 1), recorded(case, block)
        if psi < 1:
            numbers = with_means(generator, numbers)
        draws = replay(numbers, size, one_by_one=staged)
        if scenario["call"] not in ("forward", "forward_camera_pos_and_lookup"):
            raise ValueError(f"The published generator renders by forward or by camera, not by {scenario['call']}.")
        if scenario["call"] == "forward":
            yaw, pitch = generator.poses.angles(count, draws)
            camera = generator.poses.camera(yaw, pitch)
            angles = torch.cat([clamp_pitch(pitch), yaw], dim=-1)
        else:
            camera = given_camera(case, block, options)
            yaw, pitch, angles = None, None, torch.zeros(count, 2)  # the published program gives none for these
        inr = {f"block{i}": b for i, b in enumerate(generator.inr.blocks)}
        rgb = {f"rgb{i}": b.to_rgb for i, b in enumerate(generator.inr.blocks) if b.to_rgb is not None}
        modules = {"field": generator.field, "renderer": generator.renderer, "inr": generator.inr}
        styles = generator.map(latent, truncation=min(psi, 1))
        noise = options.get("nerf_noise", 0)
        with hearing(modules | {"aux": generator.auxiliary} | inr | rgb) as heard:
            rendered = generator.render(styles, camera, resolution=size, draws=draws, density_noise=noise)
        assert draws.used_up() or noise == 0

        ((coarse, _), (coarse_raw, coarse_features)), integrated = heard["field"][0], heard["renderer"][0][1]
        rays = generator.rays(camera, size)
        ours = {
            "w_nerf": styles.shape,
            "w_inr": styles.appearance,
            "pitch": pitch,
            "yaw": yaw,
            "pitch_yaw": angles.repeat(2 if options.get("return_aux_img") else 1, 1),
            "cam2world": camera.pose,
            "ray_origins": rays.origins[:, :1],
            "ray_directions": rays.directions,
            "coarse_z": coarse.t[..., None],
            "points": coarse.points.flatten(1, 2),
            "siren_out": torch.cat([coarse_features, coarse_raw], -1).flatten(1, 2),
        }
        if fine is not None:
            _, (fine_raw, fine_features) = heard["field"][1]
            ours |= {
                "coarse_weights": fine.weights[..., None],
                "fine_z": fine.t[..., None],
                "siren_out.2": torch.cat([fine_features, fine_raw], -1).flatten(1, 2),
            }
        ours |= {
            "final_sorted_rgb_sigma": torch.cat([integrated.sampled, integrated.raw], -1),
            "final_sorted_z": integrated.samples.t[..., None],
            "final_weights": integrated.weights[..., None],
            "feature_map": integrated.features,
            "depth": integrated.depth,
        }
        total = 0
        for i in range(len(generator.inr.blocks)):
            ours[f"inr_block.{4 * 2**i}"] = heard[f"block{i}"][0][1]
            if f"rgb{i}" in rgb:
                total = total + heard[f"rgb{i}"][0][1]
                ours[f"inr_rgb_sum.{4 * 2**i}"] = total
        ours |= {
            "inr_out": heard["inr"][0][1],
            "aux_out": heard["aux"][0][1].tanh(),
            "img": published_images(rendered, options),
        }
        for name, value in case.recorded(f"{block}.", ours).items():
            is_field = name.startswith((f"{block}.siren_out", f"{block}.final_sorted_rgb"))
            compare_field(case, name, value) if is_field else case.compare(name, value)


def compare_field(case: Case, name: str, ours: Tensor) -> None:
    """Compare features and, in the last channel, raw densities as two outputs: densities are much larger."""
    theirs, about = case.outputs.pop(name), case.info["outputs"].get(name, {})
    for part, (values, expected) in {
        "features": (ours[..., :-1], theirs[..., :-1]),
        "density": (ours[..., -1], theirs[..., -1]),
    }.items():
        case.outputs[f"{name}.{part}"], case.info["outputs"][f"{name}.{part}"] = expected, about
        case.relative(f"{name}.{part}", values) if part == "density" else case.compare(f"{name}.{part}", values)


def followed(case: Case, block: str, fine: Importance) -> Followed:
    """Importance samples of a block, with what was recorded of them."""
    names = (f"{block}.coarse_weights", f"{block}.fine_z")
    return Followed(fine, *(case.cast(case.outputs[name]) if name in case.outputs else None for name in names))


def with_means(generator: Generator, draws: Recorded) -> Recorded:
    """Give a generator the mean styles of the first two draws, the published one's fresh latents; the other draws."""
    (_, shape), (_, appearance), *rest = draws
    means = Styles(*(style.mean(0, keepdim=True) for style in generator.mapping(Latent(shape, appearance))))
    generator.mean_shape, generator.mean_colour, generator.mean_appearance = means
    return rest


def given_camera(case: Case, block: str, options: dict) -> Camera:
    """Cameras at given places, looking in given directions."""
    places, ahead = case.inputs[f"{block}.camera_pos"], case.inputs[f"{block}.camera_lookup"]
    ups = case.inputs.get(f"{block}.up_vector") if options.get("forward_points") else None
    intrinsics = FixedPoses(fov_deg=options["fov"])(len(places), None).intrinsics
    return Camera(looking(places, ahead, ups), intrinsics)


def partial_grad(case: Case) -> None:
    config, options = case.config, case.config["kwargs"]
    if options.get("psi", 1) < 1:
        raise ValueError("Partial gradients were recorded without truncation: psi must be 1.")
    for block in dict.fromkeys(name.split(".")[0] for name in case.outputs):
        generator = load_generator(case, config["generator"], config["generator_class"])
        generator.renderer, generator.poses = build_renderer(options), build_poses(options)
        for part in frozen_parts(config["generator_class"]):
            generator.get_submodule(part).requires_grad_(False)
        cotangent, theirs = case.inputs[f"{block}.cotangent"], case.outputs[f"{block}.img"]
        times = len(cotangent) // len(case.inputs["z_nerf"])

        def off(noise: float, block=block, generator=generator, theirs=theirs, times=times) -> Tensor:
            with torch.no_grad():
                image = published_images(partly(case, block, generator, noise)[0], {"return_aux_img": times == 2})
            return image - theirs

        is_noisy = any(name == "final_density_noise" for name, _ in recorded(case, block))
        rendered, angles = partly(case, block, generator, untold_noise(options.get("nerf_noise"), is_noisy, off))
        image = published_images(rendered, {"return_aux_img": times == 2})
        (image * cotangent).sum().backward()
        case.compare(f"{block}.img", image.detach())
        case.compare(f"{block}.pitch_yaw", angles.repeat(times, 1))
        found = gradients_of(generator, GENERATOR)
        case.gradients(f"{block}.grad_norms", f"{block}.grad.", found, config["param_names"])


def partly(case: Case, block: str, generator: Generator, noise: float) -> tuple[Rendered, Tensor]:
    """An image of which some rays keep gradients, and its angles."""
    size, draws = case.config["kwargs"]["img_size"], replay(recorded(case, block), case.config["kwargs"]["img_size"])
    latent = Latent(case.inputs["z_nerf"], case.inputs["z_inr"])
    yaw, pitch = generator.poses.angles(len(latent.z_shape), draws)
    how = {"resolution": size, "draws": draws, "density_noise": noise, "gradient_rays": case.config["grad_points"]}
    rendered = generator(latent, generator.poses.camera(yaw, pitch), **how)
    return rendered, torch.cat([clamp_pitch(pitch), yaw], dim=-1)


@torch.no_grad()
def truncation(case: Case) -> None:
    config, options = case.config, case.config["kwargs"]
    generator = load_generator(case, config["generator"], config["generator_class"])
    latent = Latent(case.inputs["z_nerf"], case.inputs["z_inr"])
    for block in case.blocks():
        draws = recorded(case, block)
        used = generator
        if (of := config.get("swap", {}).get(block)) is not None:
            target = load_generator(case, config["generator"], config["generator_class"], "target.")
            used = swap_layers(generator, target, [int(math.log2(n)) - 2 for n in of["layers"]], of["gamma_target"])
        psi = options.get("psi", 1.0)
        if found := re.fullmatch(r"psi_?(\d)[._]?(\d*)", block):
            psi = float(f"{found[1]}.{found[2] or 0}")
        if psi < 1:
            draws = with_means(used, draws)
            case.compare(f"{block}.avg_w_nerf", used.mean_shape)
            case.compare(f"{block}.avg_w_inr", used.mean_appearance)
        used.renderer, used.poses = build_renderer(options), build_poses(options)
        numbers = replay(draws, options["img_size"])
        camera = used.cameras(len(latent.z_shape), numbers)
        styles = used.map(latent, truncation=min(psi, 1.0))
        rendered = used.render(styles, camera, resolution=options["img_size"], draws=numbers)
        both = len(case.outputs[f"{block}.img"]) == 2 * len(latent.z_shape)
        case.compare(f"{block}.img", published_images(rendered, {"return_aux_img": both}))
