import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_behavior.data.video import (
    VideoError,
    count_decoded,
    decode,
    decode_codes,
    decode_frames,
    frame_times,
)


@pytest.fixture(scope="module")
def video(writer, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "x.mp4"
    writer.write_video(path, [writer.frame_picture(10, 0, t, 32) for t in range(95)], 10)
    return path


def test_whole_video_has_the_pictures_that_were_written(video, writer) -> None:
    frames = decode(video)
    expected = np.stack([writer.frame_picture(10, 0, t, 32) for t in range(95)])
    assert frames.shape == expected.shape
    assert count_decoded(video) == len(expected)
    assert np.abs(frames.astype(int) - expected).max() <= 4


@given(indices=st.lists(st.integers(0, 94), min_size=1, max_size=8))
def test_single_frames_are_those_of_the_whole_video(video, indices) -> None:
    np.testing.assert_array_equal(decode_frames(video, indices), decode(video)[indices])


@pytest.mark.parametrize("gop", [3, 250])
def test_frames_are_found_whatever_the_keyframe_distance(writer, tmp_path, gop) -> None:
    writer.write_video(tmp_path / "x.mp4", [writer.frame_picture(10, 0, t, 32) for t in range(90)], gop)
    indices = [89, 0, 44, 45, 7]
    np.testing.assert_array_equal(
        decode_frames(tmp_path / "x.mp4", indices), decode(tmp_path / "x.mp4")[indices]
    )


def noise(count: int) -> list[np.ndarray]:
    """Moving pictures, so that encoders use all kinds of references."""
    y, x = np.mgrid[:64, :64]
    return [
        np.stack([x * 3 + 5 * t, y * 2 + 3 * t, x + y + 7 * t], -1).astype(np.uint8) for t in range(count)
    ]


QUIET = "log-level=none:pools=none:frame-threads=1"


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        # x265's default: groups of pictures that are open, three intervals of key frames
        ("libx265", {"x265-params": QUIET, "g": "8"}),
        ("libx265", {"x265-params": QUIET, "g": "25"}),
        ("libx265", {"x265-params": f"{QUIET}:bframes=8:keyint=13:open-gop=1"}),
        # as LeRobot records
        ("libx265", {"x265-params": QUIET, "g": "2", "crf": "30"}),
        ("libx264", {}),
        ("libx264", {"g": "12", "bf": "3", "b_strategy": "2", "x264-params": "open-gop=1:scenecut=0"}),
        ("mpeg4", {"g": "10"}),
    ],
)
def test_single_frames_are_those_of_sequential_decoding(writer, tmp_path, codec, options) -> None:
    path = tmp_path / "x.mp4"
    writer.write_video(path, noise(80), 0, codec, options)
    with av.open(str(path)) as container:
        whole = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    np.testing.assert_array_equal(decode(path), whole)
    for index in range(80):
        np.testing.assert_array_equal(decode_frames(path, [index])[0], whole[index])
    chosen = np.random.default_rng(0).permutation(80)[:30].tolist()
    np.testing.assert_array_equal(decode_frames(path, chosen), whole[chosen])
    for start in (0, 7, 24, 79):
        count = min(9, 80 - start)
        np.testing.assert_array_equal(decode(path, None, count, start), whole[start : start + count])


def test_frames_are_found_by_position_whatever_their_time_stamps(writer, tmp_path) -> None:
    path, times = tmp_path / "x.mp4", [t + (5 if t >= 20 else 0) + (11 if t >= 40 else 0) for t in range(60)]
    writer.write_video(path, noise(60), 0, "libx264", {"g": "7", "bf": "2"}, times)
    whole = decode(path, frames=60)
    for index in (59, 0, 19, 20, 21, 40):
        np.testing.assert_array_equal(decode_frames(path, [index])[0], whole[index])
    np.testing.assert_allclose(frame_times(path), np.array(times) / 30, atol=1e-3)


def test_files_without_a_list_of_packets_are_read_too(writer, tmp_path) -> None:
    path = tmp_path / "x.mkv"
    writer.write_video(path, noise(60), 0, "libx264", {"g": "7", "bf": "2"})
    np.testing.assert_array_equal(decode_frames(path, [50, 3]), decode(path)[[50, 3]])


def test_depth_codes_are_read_without_conversion(tmp_path, video) -> None:
    path, codes = tmp_path / "depth.mp4", np.arange(20 * 64 * 64, dtype=np.uint16).reshape(20, 64, 64) % 4096
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "gray12le"
        for picture in codes:
            frame = av.VideoFrame.from_ndarray(picture, format="gray12le")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    np.testing.assert_array_equal(decode_codes(path, [11, 3]), codes[[11, 3]])
    with pytest.raises(VideoError, match=r"pixels are yuv420p; expected one channel"):
        decode_codes(video, [0])


def test_frames_are_resized_and_padded_to_a_square(writer, tmp_path, video) -> None:
    assert decode(video, 16).shape == (95, 16, 16, 3)
    wide = [np.full((32, 64, 3), 200, np.uint8)] * 3
    writer.write_video(tmp_path / "wide.mp4", wide, 10)
    frame = decode(tmp_path / "wide.mp4", 32)[0]
    assert frame.shape == (32, 32, 3)
    assert frame[:8].max() == 0
    assert frame[24:].max() == 0
    assert abs(int(frame[16, 16, 0]) - 200) < 5


def test_errors_name_the_file(video, tmp_path) -> None:
    with pytest.raises(VideoError, match=r"x\.mp4: no frame 95"):
        decode_frames(video, [3, 95])
    with pytest.raises(VideoError, match="frame -1"):
        decode_frames(video, [-1])
    with pytest.raises(VideoError, match="95 frames; expected 96"):
        decode(video, frames=96)
    with pytest.raises(VideoError, match="5 frames from frame 90; expected 9"):
        decode(video, frames=9, start=90)
    with pytest.raises(VideoError, match=r"gone\.mp4: cannot be decoded"):
        decode(tmp_path / "gone.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:500])
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        decode(cut)
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        count_decoded(cut)
