"""Datasets of a hub: real requests to a server on the loopback that answers as the Hugging Face Hub does, and that
breaks off, refuses, or sends something else when it is told to."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness_data import environment, run, start, values, write_folder
from hub_server import Hub, Trouble, serving
from huggingface_hub import constants, hf_hub_download

from harness import cache, download, hub, sources
from harness.errors import HarnessError
from harness.hub import list_files

CLIMBMIX = "karpathy/climbmix-400b-shuffle"
DATASET = "ada/notes"
_ADDRESS = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("hub") / "text", 400, 400, 400)


@pytest.fixture
def server(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one dataset; this process asks it, keeps nothing of the user's, and does not wait between tries."""
    with serving() as hub_server:
        hub_server.add(DATASET, text)
        monkeypatch.setattr(constants, "ENDPOINT", hub_server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub_server.url + _ADDRESS)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(hub, "_FIRST_WAIT_SECONDS", 0.0)
        yield hub_server


def fetched(dataset: str = DATASET) -> list[bytes]:
    listing = list_files(dataset, None)
    return [path.read_bytes() for path in download.fetch(listing, listing.files)]


def shards(server: Hub) -> list[bytes]:
    return [content for path, content in sorted(server.datasets[DATASET].items()) if path.endswith(".parquet")]


def test_files_come_whole_and_lie_where_the_hub_library_finds_them(server: Hub) -> None:
    listing = list_files(DATASET, None)
    paths = download.fetch(listing, listing.files)
    assert [path.read_bytes() for path in paths] == shards(server)
    server.datasets.clear()
    assert download.fetch(listing, listing.files) == paths
    for path in paths:
        found = hf_hub_download(DATASET, path.name, repo_type="dataset", revision=listing.commit, local_files_only=True)
        assert Path(found) == path


def test_what_the_hub_library_fetched_before_is_not_fetched_again(server: Hub) -> None:
    listing = list_files(DATASET, None)
    for file in listing.files:
        hf_hub_download(DATASET, file.path, repo_type="dataset", revision=listing.commit)
    server.requests.clear()
    assert [path.read_bytes() for path in download.fetch(listing, listing.files)] == shards(server)
    assert server.requests == []


def test_a_broken_transfer_goes_on_where_it_stopped(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    server.troubles["shard_00001.parquet"] = [Trouble(breaks_after=700), Trouble(breaks_after=300)]
    assert fetched() == shards(server)
    assert server.ranges("shard_00001") == [None, "bytes=700-", "bytes=1000-"]
    assert server.ranges("shard_00000") == [None]
    assert capsys.readouterr().err.count("harness: shard_00001.parquet: ") == 2


def test_a_hub_that_is_busy_is_asked_again_after_the_time_it_names(
    server: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "_FIRST_WAIT_SECONDS", 60.0)
    server.troubles[DATASET] = [Trouble(429, {"Retry-After": "0"}), Trouble(503, {"Retry-After": "0"})]
    server.troubles["shard_00000.parquet"] = [Trouble(429, {"RateLimit": '"resolvers";r=0;t=0', "Retry-After": "60"})]
    assert fetched() == shards(server)
    assert capsys.readouterr().err.splitlines()[:2] == [
        f"harness: the list of files of {DATASET}: status 429 Too Many Requests; trying again in 0 s",
        f"harness: the list of files of {DATASET}: status 503 Service Unavailable; trying again in 0 s",
    ]


def test_a_hub_that_stays_busy_is_given_up_in_a_sentence(server: Hub) -> None:
    server.troubles["shard_00000.parquet"] = [Trouble(503) for _ in range(99)]
    with pytest.raises(
        HarnessError, match=r"gave up on shard_00000.parquet after 5 tries \(status 503 .*rerun the same"
    ):
        fetched()
    assert len(server.ranges("shard_00000")) == 5


def test_a_file_that_comes_too_short_is_fetched_again(server: Hub) -> None:
    short = shards(server)[0][:-500]
    server.troubles["shard_00000.parquet"] = [Trouble(sends=short), Trouble(sends=short)]
    assert fetched() == shards(server)
    assert server.ranges("shard_00000") == [None, f"bytes={len(short)}-", None]


def test_a_file_that_stays_too_short_is_a_sentence_and_never_taken_for_whole(server: Hub) -> None:
    short = shards(server)[0][:-500]
    server.troubles["shard_00000.parquet"] = [Trouble(sends=short) for _ in range(99)]
    with pytest.raises(HarnessError, match=r"gave up on shard_00000.parquet after 5 tries"):
        fetched()
    server.troubles.clear()
    assert fetched() == shards(server)


def test_content_other_than_the_hub_states_is_fetched_once_more(server: Hub) -> None:
    for name in ("shard_00000.parquet", "shard_00001.parquet"):
        server.troubles[name] = [Trouble(sends=bytes(len(server.datasets[DATASET][name])))]
    server.troubles["shard_00001.parquet"] *= 2
    with pytest.raises(HarnessError, match=r"shard_00001.parquet of ada/notes arrived twice with a wrong hash"):
        fetched()
    assert fetched() == shards(server)
    assert server.ranges("shard_00001") == [None, None, None]


def test_files_damaged_since_are_found_and_fetched_again_when_they_are_checked(server: Hub) -> None:
    listing = list_files(DATASET, None)
    first, second, _ = download.fetch(listing, listing.files)
    first.write_bytes(bytes(first.stat().st_size))
    second.write_bytes(b"")
    server.requests.clear()
    assert download.fetch(listing, listing.files)[0].read_bytes() != shards(server)[0]
    assert (server.ranges("shard_00000"), server.ranges("shard_00001")) == ([], [None])
    assert [path.read_bytes() for path in download.fetch(listing, listing.files, check=True)] == shards(server)


def test_small_files_that_git_itself_holds_and_equal_files_are_fetched_too(server: Hub) -> None:
    content = shards(server)[0]
    server.datasets[DATASET] = {"a/in one.parquet": content, "a/two.parquet": content, "in-git.parquet": content}
    assert fetched() == [content] * 3
    assert len(server.ranges(".parquet")) == 2


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (Trouble(404), r"has no /content/ada/notes/shard_00000.parquet; .* `@main` after its name"),
        (
            Trouble(401, {"X-Error-Code": "GatedRepo"}),
            r"ada/notes is gated: ask for access at .* HF_TOKEN .*hf auth login",
        ),
        (Trouble(403), r"denies you access to ada/notes \(status 403\); set HF_TOKEN"),
        (Trouble(418), r"answers with status 418 I'm a Teapot for ada/notes; try again later"),
    ],
)
def test_what_another_try_would_only_repeat_is_a_sentence_at_once(server: Hub, trouble: Trouble, words: str) -> None:
    server.troubles["shard_00000.parquet"] = [trouble]
    with pytest.raises(HarnessError, match=words):
        fetched()
    assert len(server.ranges("shard_00000")) == 1


@pytest.mark.parametrize(
    ("dataset", "revision", "words"),
    [
        ("ada/nothing", None, "has no dataset ada/nothing, or the dataset is private, .* check the name"),
        (DATASET, "v2", "ada/notes has no such revision"),
        ("ada/-no-", None, "ada/-no- is not a valid name of a dataset"),
    ],
)
def test_a_dataset_that_is_not_there_is_a_sentence(server: Hub, dataset: str, revision: str | None, words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        list_files(dataset, revision)
    assert len(server.requests) <= 1


def test_something_else_that_answers_for_the_hub_is_a_sentence(server: Hub) -> None:
    server.troubles[DATASET] = [Trouble(sends=b"<html>Log in to this network</html>")]
    with pytest.raises(HarnessError, match=r"gives no valid answer for ada/notes .*; check HF_ENDPOINT"):
        list_files(DATASET, None)


def test_names_that_lead_out_of_the_cache_are_passed_over(server: Hub) -> None:
    content = shards(server)[0]
    server.datasets[DATASET] = {"../../x.parquet": content, "/x.parquet": content, "x.parquet": content}
    assert [file.path for file in list_files(DATASET, None).files] == ["x.parquet"]


def test_without_a_network_a_sentence_names_the_ways_out(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    ways_out = "or give --source a folder of parquet files, or `--source embedded`, which needs no network"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HarnessError, match=rf"cannot reach http://127.0.0.1:9 .*{ways_out}\.$"):
        list_files(DATASET, None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HarnessError, match=rf"HF_HUB_OFFLINE is set; unset it, {ways_out}\.$"):
        list_files(DATASET, None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "hub.example")
    with pytest.raises(HarnessError, match=r"hub.example is not the address of a hub; set HF_ENDPOINT"):
        list_files(DATASET, None)


def test_a_disk_without_room_is_a_sentence_before_anything_is_fetched(server: Hub) -> None:
    listing = list_files(DATASET, None)
    huge = [replace(file, size=10**18) for file in listing.files]
    with pytest.raises(HarnessError, match=r"has .* free, but 3,000,000,000.0 GB are needed; set HF_HOME"):
        download.fetch(listing, huge)
    assert server.ranges("shard") == []


def test_a_token_goes_to_the_hub_and_not_on_to_where_its_files_lie(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetched() == shards(server)
    assert len(server.authorized) == 4
    assert all(address.startswith(("/api/", "/datasets/")) for address in server.authorized)


def test_a_cache_of_the_hub_that_cannot_be_written_is_a_sentence(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(HarnessError, match=r"file.*; the hub's cache can be moved with HF_HOME=FOLDER"):
        fetched()


def test_an_interrupted_download_leaves_no_thread_behind(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_FIRST_WAIT_SECONDS", 60.0)
    server.troubles["shard_00000.parquet"] = [Trouble(503)]
    server.troubles["shard_00001.parquet"] = [Trouble(404)]
    before = threading.active_count()
    with pytest.raises(HarnessError, match="shard_00001"):
        fetched()
    assert threading.active_count() <= before + 3  # the server's own, for connections that are still open


# The command, and what SOURCE may be.


def command_environment(server: Hub, folder: Path) -> dict[str, str]:
    return environment(
        folder / "cache", HF_ENDPOINT=server.url, HF_HOME=str(folder / "hf"), HF_HUB_DISABLE_TELEMETRY="1"
    )


def test_the_command_takes_upstream_s_dataset_by_itself_and_later_needs_no_network(server: Hub, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "shards", *[300] * 13)
    server.add(CLIMBMIX, folder, shard_00012="shard_06542.parquet")
    env = command_environment(server, tmp_path)
    done = run("harness.prepare", "--seq-len", "32", env=env)
    assert done.returncode == 0, done.stderr
    asked = {address.rpartition("/")[2] for _, address, _ in server.requests}
    assert asked == {"climbmix-400b-shuffle", "shard_06542.parquet", *(f"shard_{n:05d}.parquet" for n in range(10))}
    printed = values(done.stdout)
    commit = server.commit(CLIMBMIX)
    assert printed["source"] == f"{CLIMBMIX}@{commit}"
    data = cache.load(Path(printed["folder"]))
    assert data is not None
    assert f"--source {CLIMBMIX}@{commit} --num-shards 10 --profile cpu --seq-len 32" in data.command

    (folder / "shard_00010.parquet").unlink()
    (folder / "shard_00011.parquet").unlink()
    by_hand = run("harness.prepare", "--source", str(folder), "--seq-len", "32", env=env)
    assert values(by_hand.stdout)["data_hash"] == printed["data_hash"]

    env["HF_ENDPOINT"] = "http://127.0.0.1:9"
    again = run("harness.prepare", "--source", "climbmix", "--seq-len", "32", env=env)
    assert (again.stdout, again.stderr) == (done.stdout, "")


def test_a_download_that_was_killed_asks_only_for_the_rest(server: Hub, tmp_path: Path) -> None:
    hangs = threading.Event()
    server.troubles["shard_00001.parquet"] = [Trouble(breaks_after=900, hangs=hangs)]
    arguments = ("harness.prepare", "--source", DATASET, "--seq-len", "32")
    process = start(*arguments, env=command_environment(server, tmp_path))
    assert hangs.wait(60)
    partial = wait_for(tmp_path, "hf/hub/*/blobs/*.incomplete", 900)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.requests.clear()
    done = run(*arguments, env=command_environment(server, tmp_path))
    assert done.returncode == 0, done.stderr
    assert server.ranges("shard_00001") == [f"bytes={900}-"]
    assert not partial.exists()


def test_a_dataset_stays_at_its_commit_until_it_is_made_anew(server: Hub) -> None:
    before = sources.named(DATASET)
    old = server.commit(DATASET)
    server.datasets[DATASET]["shard_00003.parquet"] = shards(server)[0] + b"more"
    assert sources.named(DATASET) == before
    newer = sources.named(f"{DATASET}@main")
    assert newer.name != before.name
    assert newer.key != before.key
    assert sources.named(DATASET) == before
    assert sources.named(f"{DATASET}@{old}") == before
    assert sources.named(DATASET, anew=True).name == newer.name
    assert sources.named(DATASET).name == newer.name


def test_a_folder_of_a_dataset_and_a_number_of_shards_can_be_chosen(server: Hub) -> None:
    content = shards(server)[0]
    server.datasets[DATASET] = {
        f"{folder}/{n}.parquet": content for folder in ("de", "en", "english") for n in range(4)
    }
    chosen = sources.named(f"{DATASET}/en", num_shards=2)
    assert [file.path for file in chosen.files] == ["en/0.parquet", "en/1.parquet", "en/3.parquet"]
    assert chosen.options[1] == f"{DATASET}@{server.commit(DATASET)}/en"
    assert sources.named(chosen.options[1], num_shards=2) == chosen
    assert len({chosen.key, *(sources.named(f"{DATASET}/{n}", num_shards=2).key for n in ("de", "english"))}) == 3
    with pytest.raises(HarnessError, match=r"ada/notes/en has 4 parquet files, one of them .* lower --num-shards to 3"):
        sources.named(f"{DATASET}/en", num_shards=4)
    with pytest.raises(HarnessError, match=r"ada/notes/fr has no parquet files; give --source one of `ada/notes/de`, "):
        sources.named(f"{DATASET}/fr")
    server.datasets[DATASET] = {"data.json": b"{}"}
    with pytest.raises(HarnessError, match="`--source ada/notes@refs/convert/parquet` finds them"):
        sources.named(DATASET, anew=True)


def test_by_default_no_more_files_are_taken_than_hold_enough_text(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(shards(server)[0])
    server.datasets[DATASET] = {f"{n}.parquet": shards(server)[0] for n in range(6)}
    monkeypatch.setattr(sources, "_ENOUGH_BYTES", 2 * size + 1)
    assert [file.path for file in sources.named(DATASET).files] == [f"{n}.parquet" for n in (0, 1, 2, 5)]


@pytest.mark.parametrize("source", ["nowhere", "a/b@c@d", "https://hub/a/b"])
def test_what_is_no_source_is_a_sentence_that_lists_them(server: Hub, source: str) -> None:
    with pytest.raises(
        HarnessError, match=rf"there is no folder {source}, .*OWNER/DATASET .*climbmix, fineweb-edu, or"
    ):
        sources.named(source)
    assert server.requests == []


def wait_for(folder: Path, pattern: str, size: int) -> Path:
    """Wait until a file under the folder has so many bytes."""
    for _ in range(2000):
        for path in folder.glob(pattern):
            if path.stat().st_size == size:
                return path
        threading.Event().wait(0.005)
    raise AssertionError(f"no {pattern} of {size} bytes; there are {[os.fspath(p) for p in folder.glob(pattern)]}")
