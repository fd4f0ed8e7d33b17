"""Commands around programs that run a network elsewhere, on files."""

import argparse
from pathlib import Path

from models.commands.arguments import add_preprocessing, preprocessing_of
from models.commands.command import Command
from models.errors import InvalidValueError
from models.offline.infos import jpeg_info, tensor_info
from models.offline.labels import labelled, read_batch_labels, read_labels, write_labels
from models.offline.metric import Metric
from models.offline.photos import Photo, find_photos
from models.offline.raw import Stated, score_raw
from models.offline.scores import score_ids, score_results
from models.offline.tensors import Form, batch_files, single_files, write_pngs, write_tensors


def _add_photos(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "photos",
        type=Path,
        metavar="PHOTOS",
        help="folder of photos, or with a folder of them for each class",
    )
    command.add_argument(
        "--format", choices=["folder", "cifar10"], default="folder", help="folder by default"
    )


def _add_names(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--names",
        choices=["last-dot", "first-dot"],
        default="last-dot",
        help="where the ending of a photo's name begins; first-dot is the references' rule",
    )


def _photos(arguments: argparse.Namespace) -> list[Photo]:
    return find_photos(arguments.photos, arguments.format)


def _add_raw_tensors(command: argparse.ArgumentParser) -> None:
    _add_photos(command)
    command.add_argument("target", type=Path, metavar="OUT", help="folder that does not exist yet")
    add_preprocessing(command)
    command.add_argument(
        "--layout",
        choices=["planes", "rows"],
        default="planes",
        help="planes: float32 NCHW, normalised, by default; rows: uint8 NHWC, which the graph of a bundle takes",
    )
    command.add_argument(
        "--batch", type=int, metavar="N", help="pictures in a file; by default one, named by it"
    )
    command.add_argument("--prefix", metavar="NAME", help="of the names of batches, photos by default")
    _add_names(command)


def _raw_tensors(arguments: argparse.Namespace) -> str:
    if arguments.prefix and arguments.batch is None:
        raise InvalidValueError("--prefix is for batches: it needs --batch")
    photos, batch = _photos(arguments), arguments.batch
    files = (
        single_files(photos, arguments.names)
        if batch is None
        else batch_files(photos, batch, arguments.prefix or "photos")
    )
    form = Form(preprocessing=preprocessing_of(arguments).build(), layout=arguments.layout, batch=batch)
    write_tensors(files, arguments.target, form)
    filled = (
        f", the last one filled up with {left} black ones" if batch and (left := -len(photos) % batch) else ""
    )
    return f"wrote {len(files):,} files of {len(photos):,} photos to {arguments.target}{filled}"


def _add_unpack_cifar10(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="FOLDER", help="with test_batch.bin")
    command.add_argument("target", type=Path, metavar="OUT", help="folder that does not exist yet")


def _unpack_cifar10(arguments: argparse.Namespace) -> str:
    photos = find_photos(arguments.folder, "cifar10")
    write_pngs(photos, arguments.target)
    return f"wrote {len(photos):,} pictures to {arguments.target}, {photos[0].name} the first"


def _add_label_file(command: argparse.ArgumentParser) -> None:
    _add_photos(command)
    command.add_argument(
        "target", type=Path, metavar="OUT", help=".json, .npy for batches, else lines of name and class"
    )
    command.add_argument("--batch", type=int, metavar="N", help="as raw-tensors was told")
    command.add_argument(
        "--labels", type=Path, metavar="FILE", help="classes of photos that are in no folders of classes"
    )
    _add_names(command)


def _label_file(arguments: argparse.Namespace) -> str:
    photos = _photos(arguments)
    if arguments.labels:
        photos = labelled(photos, read_labels(arguments.labels, arguments.names), arguments.names)
    write_labels(photos, arguments.target, arguments.batch)
    return f"wrote the classes of {len(photos):,} photos to {arguments.target}"


def _add_info_file(command: argparse.ArgumentParser) -> None:
    command.add_argument("kind", choices=["bin", "jpg"], help="raw tensors or JPEG files")
    command.add_argument("folder", type=Path, metavar="FOLDER")
    command.add_argument("target", type=Path, metavar="OUT")
    command.add_argument("--width", type=int, metavar="N", help="of the pictures in raw tensors")
    command.add_argument("--height", type=int, metavar="N")


def _info_file(arguments: argparse.Namespace) -> str:
    sides = [side for side in (arguments.width, arguments.height) if side is not None]
    if len(sides) != (2 if arguments.kind == "bin" else 0):
        raise InvalidValueError("--width and --height are both needed for bin, and seen in the files for jpg")
    text = tensor_info(arguments.folder, *sides) if sides else jpeg_info(arguments.folder)
    arguments.target.write_text(text, encoding="utf-8")
    return f"listed {len(text.splitlines()):,} files in {arguments.target}"


def _add_score(command: argparse.ArgumentParser) -> None:
    command.add_argument("results", type=Path, metavar="RESULTS", help="folder of results")
    command.add_argument("labels", type=Path, metavar="LABELS", help="as label-file writes it")
    command.add_argument("--classes", type=int, metavar="N", help="by default as many as scores")
    command.add_argument("--json", type=Path, metavar="OUT", help="report with the keys of the references")
    _add_names(command)


def _add_score_results(command: argparse.ArgumentParser) -> None:
    _add_score(command)
    command.add_argument("--ids", action="store_true", help="results are best classes, not scores")


def _score_results(arguments: argparse.Namespace) -> str:
    labels = read_labels(arguments.labels, arguments.names)
    if not arguments.ids:
        return _reported(score_results(arguments.results, labels, arguments.classes), arguments, len(labels))
    if arguments.classes is None:
        raise InvalidValueError("--ids needs --classes, which best classes do not tell")
    return _reported(score_ids(arguments.results, labels, arguments.classes), arguments, len(labels))


def _add_score_raw(command: argparse.ArgumentParser) -> None:
    _add_score(command)
    command.add_argument(
        "--dtype", choices=["float16", "float32"], help="by default what the size of the files allows"
    )


def _score_raw(arguments: argparse.Namespace) -> str:
    stated = Stated(dtype=arguments.dtype, classes=arguments.classes)
    if arguments.labels.suffix.lower() == ".npy":
        batches = read_batch_labels(arguments.labels)
        labelled = int((batches >= 0).sum())
        return _reported(score_raw(arguments.results, batches, stated), arguments, labelled)
    labels = read_labels(arguments.labels, arguments.names)
    return _reported(score_raw(arguments.results, labels, stated), arguments, len(labels))


def _reported(found: Metric, arguments: argparse.Namespace, labelled: int) -> str:
    if arguments.json:
        arguments.json.write_text(found.document(), encoding="utf-8")
    lacking = labelled - found.images
    return found.sentence() + (f"; {lacking:,} labels are of pictures without a result" if lacking else "")


RAW_TENSORS = Command(
    name="raw-tensors",
    help="write photos as files of numbers, as a network takes them",
    add_arguments=_add_raw_tensors,
    run=_raw_tensors,
)
UNPACK_CIFAR10 = Command(
    name="unpack-cifar10",
    help="write the test pictures of CIFAR-10's binary version as PNG files",
    add_arguments=_add_unpack_cifar10,
    run=_unpack_cifar10,
)
LABEL_FILE = Command(
    name="label-file",
    help="write the classes of photos in folders",
    add_arguments=_add_label_file,
    run=_label_file,
)
INFO_FILE = Command(
    name="info-file",
    help="list raw tensors or JPEG files for the benchmark tool",
    add_arguments=_add_info_file,
    run=_info_file,
)
SCORE_RESULTS = Command(
    name="score-results",
    help="tell the accuracy of text results: scores, or best classes",
    add_arguments=_add_score_results,
    run=_score_results,
)
SCORE_RAW = Command(
    name="score-raw",
    help="tell the accuracy of raw results, single or in batches",
    add_arguments=_add_score_raw,
    run=_score_raw,
)
