import numpy as np
import pytest

from hf_kakurenbo.fdsl import catalog, load_fdsl
from hf_kakurenbo.fdsl import search as module
from hf_kakurenbo.fdsl.catalog import SHIPPED_SEED, accepted_attempts, find_family
from hf_kakurenbo.fdsl.families.map_family import orbit_key, split
from hf_kakurenbo.fdsl.kernels.iterated_functions import play
from hf_kakurenbo.fdsl.search import find_attempt, search


def test_it_finds_what_is_shipped(tmp_path):
    found = search("exfractaldb", 12, tmp_path / "found.npy")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, accepted_attempts("exfractaldb")[:12])
    np.testing.assert_array_equal(found, np.load(tmp_path / "found.npy"))
    assert [path.name for path in tmp_path.iterdir()] == ["found.npy"]


def test_two_processes_find_the_same(tmp_path):
    found = search("exfractaldb", 25, tmp_path / "found.npy", processes=2)
    np.testing.assert_array_equal(found, accepted_attempts("exfractaldb")[:25])


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BETWEEN", 4)
    path, asked = tmp_path / "found.npy", []

    def stopped(done):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search("exfractaldb", 15, path, on_progress=stopped)
    assert len(np.load(path)) == 8
    monkeypatch.setattr(module, "find_attempt", lambda *place: asked.append(place[2]) or find_attempt(*place))
    told = []
    found = search("exfractaldb", 15, path, on_progress=told.append)
    np.testing.assert_array_equal(found, accepted_attempts("exfractaldb")[:15])
    # The last one is looked at again, to see that the file is of this search.
    assert asked == [7, *range(8, 15)]
    assert told == [8, 12, 15]


def test_fewer_than_there_are_takes_nothing_away(tmp_path):
    path = tmp_path / "found.npy"
    search("exfractaldb", 5, path)
    assert len(search("exfractaldb", 3, path)) == 3
    assert len(np.load(path)) == 5


def test_another_search_is_not_gone_on_with(tmp_path):
    path = tmp_path / "found.npy"
    search("exfractaldb", 3, path, seed=1)
    with pytest.raises(ValueError, match="another family, another version of it or another seed than 0"):
        search("exfractaldb", 5, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read"), (b"a,b,c", "cannot be read"), (np.zeros(3), "holds no list of attempts")],
)
def test_a_file_of_something_else_is_left_alone(tmp_path, content, message):
    path = tmp_path / "found.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        search("exfractaldb", 5, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("option", ["categories", "processes"])
def test_numbers_out_of_range(tmp_path, option):
    options = {"categories": 3, "processes": 1, option: 0}
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        search("exfractaldb", path=tmp_path / "found.npy", **options)


def test_a_family_that_accepts_nothing(monkeypatch):
    monkeypatch.setattr(type(find_family("exfractaldb")), "accepts", lambda self, parameters, key: False)
    monkeypatch.setattr(catalog, "_MOST_ATTEMPTS", 50)
    with pytest.raises(RuntimeError, match="None of 50 attempts at category 3 of exfractaldb is accepted"):
        find_attempt(find_family("exfractaldb"), 0, 3)
    with pytest.raises(RuntimeError, match="None of 50 attempts at category 2 of exfractaldb is accepted"):
        load_fdsl("exfractaldb-test", seed=918273, image_size=8)[2 * 8]


# ExFractalDB, against the published search, in plain NumPy.


def one_orbit_each(systems, points):
    """The points of one orbit of each system, from the origin: (systems, points, 3)."""
    random, orbits = np.random.default_rng(0), np.zeros((len(systems), points, 3))
    chosen = np.array([table[random.choice(len(table), points, p=table[:, 12])] for table in systems])
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(points - 1):
            maps = chosen[:, k]
            turned = np.einsum("sij,sj->si", maps[:, :9].reshape(-1, 3, 3), orbits[:, k])
            orbits[:, k + 1] = turned + maps[:, 9:12]
    return orbits


def spread(points):
    """The least variance along an axis of points that are brought to −1..1 by the extremes of all coordinates."""
    scaled = 2 * (points - points.min()) / (points.max() - points.min()) - 1
    return scaled.var(axis=0).min()


def test_exfractaldb_accepts_what_the_published_search_does():
    family, shipped = find_family("exfractaldb"), accepted_attempts("exfractaldb")
    keys = [family.parameter_key(5, 0, attempt) for attempt in range(300)]
    keys += [family.parameter_key(SHIPPED_SEED, category, int(shipped[category])) for category in range(40)]
    systems = [family.draw_parameters(key) for key in keys]
    counts, infinite = {(False, False): 0, (True, True): 0, (False, True): 0, (True, False): 0}, []
    for key, system, points in zip(keys, systems, one_orbit_each(systems, 10_000), strict=True):
        finite = np.isfinite(points).all()
        infinite.append((play(*split(system), 10_000, orbit_key(key)) is None, not finite))
        variance = spread(points) if finite and np.abs(points).max() < 1e100 else 0.0
        # Other random numbers: what is close to the border may fall on either side.
        if abs(variance - 0.05) > 0.005:
            counts[family.accepts(system, key), variance > 0.05] += 1
    assert counts[True, True] > 20
    assert counts[False, False] > 280
    # Of some systems a point strays far now and then, and all others are brought the closer together.
    assert counts[True, False] + counts[False, True] <= 2
    # Of those that grow slowly one comes to infinity within so many points, and another does not.
    assert np.mean([ours == theirs for ours, theirs in infinite]) > 0.94
    assert sum(theirs for _, theirs in infinite) > 20
