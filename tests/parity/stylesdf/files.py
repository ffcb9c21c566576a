"""Cases of checkpoints."""

import torch

from tests.parity.harness import Case
from tests.parity.published import same_tensors
from tests.parity.stylesdf.build import camera_of, make_generator
from tests.parity.stylesdf.rendering import compare_all, rendered
from tests.test_official import stylesdf_experiment
from zoo.stylesdf import convert as stylesdf
from zoo.stylesdf.model import Latent
from zoo.weights.convert import convert_network
from zoo.weights.names import published_name, to_published
from zoo.weights.read import Place, read


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """A file of either stage: every tensor, and what is drawn with the EMA."""
    place = Place(case.folder / case.config["file"])
    contents, made = read(place), {}
    inference = make_generator(case, "generator_ema.")
    experiment = stylesdf_experiment()["model"]["init_args"]["generator"]
    for weights, entry in stylesdf.WEIGHTS.items():
        one = made[weights] = convert_network(stylesdf, place, contents, experiment, weights)
        tensors = one.network.state_dict() | one.unused
        back = stylesdf.official({weights: to_published(tensors, stylesdf.table(one.network))}, {})
        theirs = {"g": "generator.", "g_ema": "generator_ema.", "d": "discriminator."}[entry]
        ours = next(iter(back.values()))[entry]
        for expected in (case.published(theirs), contents.value[entry]):
            assert same_tensors(ours, expected), weights
    inference.load_state_dict({n: case.cast(t) for n, t in made["ema"].network.state_dict().items()})
    styles, camera = inference.map(Latent(case.inputs["z"])), camera_of(case)
    with torch.enable_grad():
        ours = rendered(inference, styles, camera, inference.render_side, None)
    image = inference.render(styles, camera).image
    judged = made["discriminator"].network.to(case.dtype)(image)
    ours |= {"rgb": image, "score": judged.scores, "viewpoint": judged.camera}
    compare_all(case, "", ours)
    if "transfer.count" in case.outputs:
        first = [name for name in inference.state_dict() if published_name(name, stylesdf.GENERATOR)]
        case.compare("transfer.count", torch.tensor(len(first)))
        case.scores("transfer.thumb_w", styles.w)
