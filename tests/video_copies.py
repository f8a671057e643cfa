"""Writes a video anew without a network, as the tests of reading and of writing need it."""

from ddsa_arch.files.video_formats import output_suffix
from ddsa_arch.files.video_writer import writing_video
from ddsa_arch.files.videos import VideoReader


def copied(source, target=None):
    """Write the frames and packets of a video anew; the new file and the notes."""
    target = target or source.with_name('copy' + output_suffix(source.suffix))
    reader = VideoReader(source)
    try:
        with writing_video(target, reader) as writer:
            for packets, frame in reader.items(writer.passed_on):
                for packet in packets:
                    writer.pass_on(packet)
                if frame is not None:
                    writer.write(frame)
    finally:
        reader.close()
    return target, [*reader.notes, *writer.notes, *filter(None, [reader.cut_off])]
