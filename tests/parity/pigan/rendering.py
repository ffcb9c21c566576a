"""Cases of images, also with truncated styles, with everything on the way from their rays."""

from functools import partial

import torch

from tests.parity.harness import Case
from tests.parity.pigan.build import FILLS, IMAGE, build_renderer, load_generator
from tests.parity.pigan.draws import forward_draws
from tests.parity.pigan.networks import query
from tests.parity.published import Watched
from tests.parity.replay import Replay
from zoo.pigan.model import Generator, Latent, Styles
from zoo.render import Samples

SCENARIOS = {
    "hier_noise": {},
    "coarse_only": {"hierarchical_sample": False, "nerf_noise": 0},
    "last_back": {"last_back": True, "nerf_noise": 0},
    "white_back": {"white_back": True, "nerf_noise": 0},
    "softplus": {"clamp_mode": "softplus", "nerf_noise": 0},
    "lock_view": {"nerf_noise": 0},
}


@torch.no_grad()
def render(case: Case) -> None:
    generator = load_generator(case)
    yaw, pitch = case.inputs["yaw"], case.inputs["pitch"]
    camera = generator.poses.camera(yaw, pitch)
    styles = generator.map(Latent(case.inputs["z"]))
    for block in case.blocks():
        if block == "query":
            query(case, generator)
            continue
        options = {**case.config["render"], "hierarchical_sample": True, **SCENARIOS[block]}
        hierarchical, size = options["hierarchical_sample"], options["img_size"]
        renderer = generator.renderer = build_renderer(options)
        renderer.fine = Watched(renderer.fine) if hierarchical else None
        field = Watched(partial(generator.field, lock_view=block == "lock_view"))
        draws = Replay(forward_draws(case.draws(block), hierarchical))
        rays = generator.rays(camera, size)
        integrated = renderer(field, rays, generator.field.modulate(styles), draws, options["nerf_noise"])

        origins, x, y, z = camera.origins, *camera.origins.T
        angles = torch.stack([torch.acos(y / origins.norm(dim=-1)), torch.atan2(z, x)], dim=-1)
        (coarse, _), (coarse_raw, coarse_colour) = field.calls[0]
        ours = {
            "pose": angles,
            "rays_d_cam": rays.directions @ camera.pose[:, :3, :3],
            "z_linear": renderer.depths(rays, None).t[..., None],
            "rays_d": rays.directions,
            "rays_o": rays.origins,
            "z_vals": coarse.t[..., None],
            "points_world": coarse.points,
            "frequencies": styles.frequencies.flatten(1),
            "phase_shifts": styles.phases.flatten(1),
            "coarse_rgb_sigma": torch.cat([coarse_colour, coarse_raw], -1).flatten(1, 2),
        }
        if hierarchical:
            ((_, weights, _), fine_t) = renderer.fine.calls[0]
            (fine, _), (fine_raw, fine_colour) = field.calls[1]
            ours |= {
                "coarse_weights": weights[..., None],
                "fine_z": fine_t.flatten(0, 1),
                "fine_points": fine.points.flatten(1, 2),
                "fine_rgb_sigma": torch.cat([fine_colour, fine_raw], -1).flatten(1, 2),
            }
        ours |= {
            "weights": integrated.weights[..., None],
            "depth": integrated.depth,
            "image": 2 * integrated.features.mT.unflatten(-1, (size, size)) - 1,
        }
        for name, value in case.recorded(f"{block}.", ours).items():
            if name.endswith("rgb_sigma"):
                case.relative(name, value)
            else:
                case.compare(name, value, IMAGE if name == f"{block}.image" else 1e-4)
        assert draws.used_up() or options["nerf_noise"] == 0

        again = Replay(forward_draws(case.draws(block), hierarchical))  # the public way gives the same image
        rendered = generator.render(
            styles,
            camera,
            resolution=size,
            draws=again,
            density_noise=options["nerf_noise"],
            lock_view=block == "lock_view",
        )
        assert torch.equal(rendered.image, ours["image"])


# truncation, then what else the block's call was given
TRUNCATED = {
    "psi1": (1.0, {}),
    "psi07": (0.7, {}),
    "psi0": (0.0, {}),
    "psi07_lock": (0.7, {"lock_view": True}),
    "psi07_lastback": (0.7, {"last_back": True}),
    "fill_weight": (0.7, {"fill": "weight"}),
    "fill_debug": (0.7, {"fill": "debug"}),
    "chunked": (0.7, {"chunk": 37}),
    "interp": (0.7, {}),
    "fwf": (0.7, {}),
}


@torch.no_grad()
def truncation(case: Case) -> None:
    generator, options = load_generator(case), case.config["render"]
    means = generator.mapping(case.inputs["z_avg"])
    generator.mean_frequencies, generator.mean_phases = (x.mean(0, keepdim=True) for x in means)
    case.compare("avg_frequencies", generator.mean_frequencies.flatten(1))
    case.compare("avg_phase_shifts", generator.mean_phases.flatten(1))
    size, latent = options["img_size"], Latent(case.inputs["z"])
    for block, (psi, changed) in TRUNCATED.items():
        styles = generator.map(latent, truncation=psi)
        if block == "interp":
            styles = Styles(*(0.75 * x[:1] + 0.25 * x[1:] for x in styles))
        n = len(styles.phases)
        camera = generator.poses.camera(torch.full((n, 1), options["h_mean"]), torch.full((n, 1), options["v_mean"]))
        renderer = build_renderer(options | changed)
        field = partial(generator.field, lock_view=changed.get("lock_view", False))
        draws = Replay(forward_draws(case.draws(block), options["hierarchical_sample"]))
        result = renderer(field, generator.rays(camera, size), generator.field.modulate(styles), draws)
        colour = FILLS[changed.get("fill", "no")](result)
        case.compare(f"{block}.image", 2 * colour.mT.unflatten(-1, (size, size)) - 1, IMAGE)
        if f"{block}.depth" in case.outputs:
            case.compare(f"{block}.depth", result.depth.unflatten(1, (size, size))[..., 0])
    shape(case, generator, generator.map(Latent(latent.z[:1]), truncation=0.5))


def shape(case: Case, generator: Generator, styles: Styles) -> None:
    """The published script's cube of densities, at its points with their fractional indices."""
    n = len(case.outputs["shape.sigmas"])
    i, side = torch.arange(n**3, dtype=case.dtype), 0.3
    points = (torch.stack([i / n / n % n, i / n % n, i % n], -1) * (side / (n - 1)) - side / 2)[None]
    case.compare("shape.samples", points)
    samples = Samples(points, torch.zeros_like(points), torch.zeros_like(points[..., :1]))
    raw, _ = generator.field(samples, generator.field.modulate(styles))
    case.relative("shape.sigmas", raw.reshape(n, n, n))
