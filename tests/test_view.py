"""The viewer without a browser: what is shown, from where, of which weights, and what is saved."""

import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image

from tests.analytic import Sphere
from tests.systems import SYSTEMS
from tests.test_user_errors import refusal
from tests.tiny import CONFIG
from tests.tiny_systems import eg3d
from zoo.export import turntable_views
from zoo.export.camera_paths import frames_along_path
from zoo.export.images import depth_to_bytes
from zoo.generator import Generator, draws_for, quantise
from zoo.render import UniformPoses
from zoo.render.projection import image_coordinates
from zoo.training.checkpoint_files import write
from zoo.utils.errors import UserError
from zoo.view import Checkpoints, Choice, Scene, Shelf, Stand, Viewpoint
from zoo.view.origins import foreign_origin
from zoo.view.scene import EDIT_FRAMES
from zoo.view.server import free_port, on_canvas, serve
from zoo.view.viewpoints import CameraPath
from zoo.weights import load_bundle
from zoo.weights.bundle import BundleInfo, build


def tiny(config: dict) -> Generator:
    """The generator of a system's tiny config, with weights of a kind."""
    return build(config["model"]["init_args"]["generator"], Generator).eval()


@pytest.fixture(scope="module")
def cars() -> Generator:
    return load_bundle("pigan-cars32")[0]


@pytest.fixture(scope="module")
def scenes() -> Scene:
    return Scene(load_bundle("giraffe-cars32")[0])


# ------------------------------------------------------------------------------------------------ what is shown


@torch.no_grad()
def test_a_seed_is_what_zoo_sample_draws(cars):
    scene, how = Scene(cars, seed=5), {"seed": 5, "truncation": 0.7}
    drawn = turntable_views(cars, [3], 4, **how).image[0]
    latent, _ = cars.sample(1, draws_for(cars, 5, [3]))
    _, camera = frames_along_path(cars, latent, "turntable", 4)
    for i, image in enumerate(drawn):
        shown = scene.render(Choice(3, truncation=0.7), camera.take(slice(i, i + 1)), exact=True)
        assert torch.equal(quantise(shown.image[0]), image)
        viewpoint = scene.stand.seen_from(camera.origins[i], scene.stand.pivot)
        picture = scene.picture(Choice(3, truncation=0.7), viewpoint)
        assert (picture.int() - image).abs().max() <= 1
    scene.picture(Choice(3, truncation=0.7), scene.stand.front, resolution=64)
    (space,) = scene.space.spaces
    assert 0 < space.queried < space.samples  # the later ones leave empty space out
    assert not torch.equal(scene.picture(Choice(4, truncation=0.7), scene.stand.front), drawn[2])


def test_interpolation_ends_at_both_seeds(cars, scenes):
    scene = Scene(cars)
    first, second = (scene.latents_of(Choice(i)).z for i in (2, 9))
    ends = [scene.latents_of(Choice(2, 9, mix)).z for mix in (0.0, 1.0)]
    assert torch.equal(ends[0], first) and torch.equal(ends[1], second)
    middle = scene.latents_of(Choice(2, 9, 0.5)).z
    torch.testing.assert_close(middle, (first + second) / math.sqrt(2))
    assert scene.parts() == [] and {"shape_code", "appearance_code"} <= {*scenes.parts()}
    part = scenes.latents_of(Choice(2, 9, 1.0, parts=("shape_code",)))
    own, other = (scenes.latents_of(Choice(i)) for i in (2, 9))
    torch.testing.assert_close(scenes.latents_of(Choice(2, 9, 1.0)), other)
    assert torch.equal(part.shape_code, other.shape_code)
    assert all(torch.equal(a, b) for a, b in zip(part[1:], own[1:], strict=True))


def test_depth_and_normals_of_a_sphere():
    scene = Scene(Sphere(resolution=33))
    picture = {kind: scene.picture(Choice(), scene.stand.front, kind) for kind in scene.kinds()}
    assert list(picture) == ["image", "depth", "normals"] and {x.shape for x in picture.values()} == {(3, 33, 33)}
    rendered = scene.render(Choice(), scene.stand.cameras([scene.stand.front]))
    assert torch.equal(picture["depth"], depth_to_bytes(rendered.depth[:, None])[0, 0])
    red, green, blue = picture["normals"]
    assert (picture["normals"][:, 16, 16].int() - torch.tensor([128, 128, 255])).abs().max() <= 2
    across, down = red[16].int(), green[:, 16].int()
    assert across[12] < 100 and across[20] > 155 and down[12] > 155 and down[20] < 100 and blue[16, 16] > 250
    assert (picture["normals"][:, 0, 0] == 255).all() and (picture["depth"][:, 0, 0] == 255).all()
    turned = scene.picture(Choice(), scene.stand.front._replace(yaw=0.3), "normals")
    assert (turned.int() - picture["normals"]).abs().max() <= 3  # they are seen from the camera


def test_depth_is_that_of_the_objects_alone(scenes):
    generator, camera = scenes.generator, scenes.stand.cameras([scenes.stand.front])
    alone = scenes.render(Choice(), camera, objects=True).opacity
    with torch.no_grad():
        styles = generator.foreground_only(scenes.styles_of(Choice()))
        assert torch.equal(alone, generator.render(styles, camera).opacity)
    assert not torch.equal(alone, scenes.render(Choice(), camera).opacity)


@torch.no_grad()
def test_a_background_learned_from_the_front_goes_with_the_mouse():
    scene = Scene(tiny(SYSTEMS["giraffe"]()))
    camera = scene.stand.cameras([scene.stand.front._replace(yaw=0.3)])
    styles = scene.styles_of(Choice())
    turned = scene.generator.with_backdrop(styles, camera)
    assert not torch.equal(turned.background_rotation, styles.background_rotation)
    assert torch.equal(scene.render(Choice(), camera).image, scene.generator.render(turned, camera).image)


def test_edits_change_the_scene(scenes):
    generator, edits = scenes.generator, scenes.edits()
    assert {"rotate", "swap-shape"} <= {*edits} and "elevation" not in edits  # which moves the camera
    draws = draws_for(generator, 0, [4])
    latent, _ = generator.sample(1, draws)
    turned, _ = generator.edits["rotate"](generator, latent, EDIT_FRAMES, draws)
    shown = scenes.latents_of(Choice(4, edit="rotate", frame=7))
    assert all(torch.equal(a, b[7:8]) for a, b in zip(shown, turned, strict=True))
    with pytest.raises(UserError, match="There is no edit 'rotat'"):
        scenes.picture(Choice(edit="rotat"), scenes.stand.front)


def test_a_generator_that_lacks_everything_is_shown(beside):
    from splats import SplatGenerator

    scene = Scene(SplatGenerator(UniformPoses(yaw_spread=1.0, radius=4.0, fov_deg=40)))
    assert scene.kinds() == ["image", "depth"] and scene.edits() == [] and scene.parts() == []
    assert scene.picture(Choice(), scene.stand.front).float().std() > 0


@torch.no_grad()
def test_the_condition_is_apart_from_the_view():
    scene = Scene(tiny(eg3d()))
    front = scene.stand.front
    usual = scene.styles_of(Choice())
    turned = scene.styles_of(Choice(condition=front._replace(yaw=front.yaw + 1)))
    assert scene.generator.is_conditioned and not torch.equal(usual.w, turned.w)
    assert scene.sides() == [scene.generator.resolution]


def test_images_are_coarse_while_the_camera_moves_and_only_as_far_as_needed(cars):
    scene = Scene(cars)
    assert scene.moving_side(64) == 16  # nothing is known yet
    for seconds, side in ((0.05, 64), (0.3, 32), (2.0, 16)):
        scene.seconds = {64: seconds}
        assert scene.moving_side(64) == side
    assert scene.picture(Choice(), scene.stand.front, resolution=16).shape == (3, 16, 16)
    assert 16 in scene.seconds and scene.sides() == [8, 16, 32, 64, 128, 256]
    assert Scene(tiny(eg3d())).moving_side() == tiny(eg3d()).resolution  # it has one side only


def test_a_small_model_is_fast_enough_to_turn(cars):
    scene, frames = Scene(cars), 8
    around = [scene.stand.front._replace(yaw=0.3 * i) for i in range(frames + 2)]
    for i, viewpoint in enumerate(around):
        if i == 2:  # its styles and empty space are known from here on
            start = time.process_time()
        on_canvas(scene.picture(Choice(), viewpoint, resolution=64), 1.6)
    assert (time.process_time() - start) / frames < 1 / 8  # on one processor


# ------------------------------------------------------------------------------------------------ from where


def test_a_viewpoint_sees_the_pivot_where_the_mouse_has_put_it():
    stand = Stand(Sphere())
    turned = Viewpoint(0.3, 0.9)
    again = stand.seen_from(stand.position(turned), stand.pivot)
    assert np.allclose(again, turned, atol=1e-6)
    position = np.array([2.0, 1.5, 5.0])
    moved = stand.seen_from(position, [0.4, -0.2, 0.1])
    camera = stand.cameras([moved])
    assert camera.origins.norm().item() == pytest.approx(stand.radius, rel=1e-6)
    client = camera._replace(intrinsics=stand.middle.intrinsics, pose=camera.pose.clone())
    client.pose[0, :3, 3] = torch.tensor(position)
    pivot = torch.zeros(1, 3)
    assert torch.allclose(image_coordinates(camera, 0, pivot), image_coordinates(client, 0, pivot), atol=1e-5)
    near = stand.seen_from(np.array(stand.position(turned)) / 2, stand.pivot)
    assert near.zoom == pytest.approx(2) and near[3:] == pytest.approx((0, 0), abs=1e-6)


def test_a_path_goes_through_its_keyframes_the_shorter_way():
    keyframes = [Viewpoint(3.0, 1.0), Viewpoint(-3.0, 1.2, zoom=4.0), Viewpoint(-2.0, 0.8)]
    path = CameraPath()
    for keyframe in keyframes:
        path = path.with_keyframe(keyframe)
    way = np.array(path.viewpoints(9))
    wanted = np.array(keyframes)
    wanted[:, 0] = [3.0, 2 * math.pi - 3.0, 2 * math.pi - 2.0]
    assert np.allclose(way[[0, 4, 8]], wanted, atol=1e-5) and (np.diff(way[:, 0]) > 0).all()
    assert (way[:, 2] > 0).all()


def test_the_canvas_is_as_wide_as_the_browser():
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 16, 16)
    wide, high = on_canvas(red, 1.5), on_canvas(red, 0.5)
    assert wide.shape == (512, 768, 3) and high.shape == (1024, 512, 3)
    assert (wide[0, 384] == [255, 0, 0]).all() and (wide[256, 0] == 255).all() and (high[0, 256] == 255).all()


# ------------------------------------------------------------------------------------------------ of which weights


def save_run(path: Path, generator: Generator) -> None:
    """A checkpoint as 'zoo fit' writes it."""
    model = CONFIG["model"] | {"init_args": CONFIG["model"]["init_args"] | {"emas": None}}
    state = {f"generator.{name}": tensor for name, tensor in generator.state_dict().items()}
    path.parent.mkdir(exist_ok=True)
    write({"state_dict": state, "clocks": {"iterations": 1, "images_seen": 4}, "config": model}, path)


def test_a_run_is_followed_and_a_broken_checkpoint_is_said_once(tmp_path):
    with pytest.raises(UserError, match="no weights named"):
        Checkpoints("nosuch", load_bundle)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"There is no checkpoint in '.*' yet"):
        Checkpoints(str(tmp_path), load_bundle)
    first, second = tiny(CONFIG), tiny(CONFIG)
    last, said = tmp_path / "checkpoints" / "last.ckpt", []
    save_run(last, first)
    checkpoints = Checkpoints(str(tmp_path), load_bundle)

    def shown(generator: Generator) -> bool:
        return all(torch.equal(a, b) for a, b in zip(generator.parameters(), weights(), strict=True))

    def weights():
        return checkpoints.loaded[0].parameters()

    assert shown(first) and not checkpoints.look(said.append)
    whole = last.read_bytes()
    for length in (100, 200):  # it is being written
        last.write_bytes(whole[:length])
        assert not checkpoints.look(said.append) and said == []
    assert not checkpoints.look(said.append) and shown(first) and len(said) == 1 and "damaged" in said[0]
    last.write_bytes(whole[:300])
    (tmp_path / "checkpoints" / ".saving-1.ckpt").write_bytes(b"of a writer")
    assert [checkpoints.look(said.append) for _ in range(4)] == [False] * 4 and len(said) == 1
    save_run(last, second)
    assert [checkpoints.look(said.append) for _ in range(3)] == [False, True, False]
    assert shown(second) and said[1:] == [f"Now from {last}."]
    last.unlink()
    assert not checkpoints.look(said.append) and shown(second)
    assert not Checkpoints("pigan-cars32", load_bundle).look()


# ------------------------------------------------------------------------------------------------ what is saved


def test_files_have_names_of_their_own(tmp_path, cars):
    scene, shelf = Scene(cars), Shelf(tmp_path / "new", "cars")
    front = scene.stand.front
    paths = [shelf.save_image(scene, Choice(7), front, resolution=16)[0] for _ in range(2)]
    assert [path.name for path in paths] == ["cars-7-001.png", "cars-7-002.png"]
    image = torch.from_numpy(np.array(Image.open(paths[0]))).movedim(-1, 0)
    assert torch.equal(image, scene.picture(Choice(7), front, resolution=16, exact=True))
    path = CameraPath((front,))
    with pytest.raises(UserError, match="at least two keyframes"):
        shelf.save_path(scene, Choice(7), path)
    path = path.with_keyframe(front._replace(yaw=front.yaw + 0.5, zoom=2.0))
    video, written = shelf.save_path(scene, Choice(7), path, resolution=8)
    facts = json.loads(written.read_text())
    assert video.stem == written.stem == "cars-7-003" and Image.open(video).n_frames == len(facts["frames"]) == 25
    assert facts["keyframes"][1]["zoom"] == 2.0 and np.shape(facts["frames"][0]["pose"]) == (4, 4)
    (mesh,) = shelf.save_mesh(scene, Choice(7), cells=16)
    assert mesh.name == "cars-7-004.ply" and mesh.stat().st_size > 1000


# ------------------------------------------------------------------------------------------------ the command


def test_a_port_that_is_taken_is_not_asked_for():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) > port
    assert free_port("127.0.0.1", 0) > 0
    for host in ("203.0.113.7", "no such host"):
        with pytest.raises(UserError, match="is no address of this machine"):
            free_port(host, 8080)


@pytest.mark.parametrize(
    ("host", "origin", "asked", "is_own"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("127.0.0.1", "http://localhost:9000", "localhost:9000", True),  # forwarded
        ("::1", "http://[::1]:8080", "[::1]:8080", True),
        ("127.0.0.1", None, "127.0.0.1:8080", True),  # a program, not a page
        ("127.0.0.1", "https://elsewhere.example", "127.0.0.1:8080", False),
        ("127.0.0.1", "null", "127.0.0.1:8080", False),
        ("127.0.0.1", "http://localhost:3000", "localhost:8080", False),  # another server of this machine
        ("127.0.0.1", "http://elsewhere.example:8080", "elsewhere.example:8080", False),  # a name that leads here
        ("0.0.0.0", "http://server:8080", "server:8080", True),
        ("0.0.0.0", "https://elsewhere.example", "server:8080", False),
    ],
)
def test_pages_of_other_addresses_are_told_apart(host, origin, asked, is_own):
    pytest.importorskip("websockets")
    from websockets.datastructures import Headers

    headers = Headers([("Host", asked), *([("Origin", origin)] if origin else [])])
    assert foreign_origin(headers, host) == (None if is_own else origin)


def test_a_page_of_another_address_is_refused(tmp_path):
    pytest.importorskip("viser")
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    said, stop, ready = [], threading.Event(), threading.Event()

    def say(line: str) -> None:
        said.append(line)
        ready.set()

    checkpoints = Checkpoints("sphere", lambda _: (Sphere(), BundleInfo("sphere", tmp_path, "", {})))
    options = {"port": 0, "say": say, "stop": stop}
    thread = threading.Thread(target=serve, args=(checkpoints, Shelf(tmp_path, "sphere")), kwargs=options, daemon=True)
    thread.start()
    try:
        assert ready.wait(30)
        address = said[0].split()[0]
        with urlopen(address, timeout=30) as page:
            assert b"<html" in page.read()
        socket_of = address.replace("http", "ws")
        connect(socket_of, origin=address).close()
        for _ in range(2):
            with pytest.raises(InvalidStatus, match="403"):
                connect(socket_of, origin="https://elsewhere.example")
    finally:
        stop.set()
        thread.join(30)
    assert [line for line in said if "elsewhere" in line] == [
        "A page of 'https://elsewhere.example' was refused: only the viewer's own page may connect to it."
    ]


def test_what_cannot_be_shown_is_said_in_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert "There is no checkpoint in 'run' yet" in refusal(["view", "run"], capsys)
    assert "port is 70000: give a number from 0 to 65535" in refusal(["view", "run", "--port", "70000"], capsys)
    monkeypatch.setitem(sys.modules, "viser", None)
    assert refusal(["view", "run"], capsys) == "The viewer needs viser: pip install 'gan3d-zoo[view]'."


def test_ctrl_c_ends_it_in_good_order(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = [sys.executable, "-u", "-m", "zoo", "view", "pigan-cars32", "--port", port, "--device", "cpu"]
        # A shell has what it runs in the background ignore Ctrl-C, these tests with all that they start.
        listens = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **listens)
        try:
            assert process.stdout.readline() == f"Port {port} is taken.\n"
            address = process.stdout.readline().split()[0]
            with urlopen(address, timeout=120) as page:
                assert b"<html" in page.read()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0 and out == "" and err == "Running on cpu.\n"
