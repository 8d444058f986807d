"""The commands `fieldpost quantum …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoring.commands.output import changes, common, fields, show

if TYPE_CHECKING:
    from scoring.quantum.circuit import Model
    from scoring.quantum.classifier import Evaluation, SequentialClassifier
    from scoring.quantum.compile.compiler import CompiledCircuit
    from scoring.quantum.labelled import Labelled

_PATH = click.Path(path_type=Path)
_LABEL = click.option(
    "--label", default="", metavar="COLUMN", help="The labels' column. Default: the last one."
)
_FILE_ENDINGS = (".json", ".onnx", ".qasm", ".qasm3", ".qs")
_ENDINGS = {"onnx": ".onnx", "circuit": ".circuit.json", "qasm": ".qasm", "qsharp": ".qs"}


@click.command(help="Learn a circuit from labelled rows.")
@click.argument("data", type=_PATH)
@click.option(
    "--out", required=True, metavar="NAME", help="Write NAME.circuit.json, or this very file."
)
@click.option(
    "--structure",
    metavar="LAYERS",
    help="local-AXIS, partial-AXIS:QUBITS, cyclic-AXIS[:STRIDE], turn-AXIS:TARGET,CONTROLS. "
    "Default: 'local-z local-x cyclic-x partial-x:-1'.",
)
@click.option(
    "--encoding",
    metavar="STEPS",
    help="What is done to rows first: standard, minmax, constant:VALUES, product, power:TIMES, "
    "round:STEP.",
)
@_LABEL
@click.option("--test", type=_PATH, help="Labelled rows to evaluate on afterwards.")
@click.option(
    "--test-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Keep this share of the rows out of training, and evaluate on them.",
)
@click.option("--qubits", type=click.IntRange(1), help="Default: as few as are needed.")
@click.option(
    "--multiclass",
    type=click.Choice(["auto", "one-vs-rest", "qubits"]),
    default="auto",
    show_default=True,
    help="More than two classes: a circuit for each, or one with several measured qubits.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["library", "adam", "lbfgs"]),
    default="library",
    show_default=True,
    help="The loop of Microsoft's Q# library, or cross-entropy by Adam or L-BFGS.",
)
@click.option(
    "--gradient",
    type=click.Choice(["adjoint", "shift", "sampled", "spsa", "hadamard", "qsharp_released"]),
    default="adjoint",
    show_default=True,
    help="adjoint is exact and the fastest; sampled sees what a device would.",
)
@click.option("--epochs", type=click.IntRange(1), default=16, show_default=True)
@click.option("--learning-rate", type=float, default=0.1, show_default=True)
@click.option("--minibatch-size", type=click.IntRange(1), default=15, show_default=True)
@click.option("--tolerance", type=float, default=0.005, show_default=True)
@click.option("--n-measurements", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--max-stalls", type=click.IntRange(1), default=8, show_default=True)
@click.option("--starts", type=click.IntRange(1), default=4, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--jobs", type=int, default=1, show_default=True, help="Processes; -1: all cores.")
@click.option("--checkpoint", type=_PATH, help="Go on from here where training was broken off.")
@changes
@common
def train(
    data: Path,
    out: str,
    label: str,
    test: Path | None,
    test_share: float | None,
    seed: int,
    checkpoint: Path | None,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,  # noqa: ARG001 - every command has it
    jobs: int,
    **options: Any,
) -> None:
    """Trains on DATA and writes the circuit."""
    from scoring.quantum import document
    from scoring.quantum.classifier import SequentialClassifier

    learned, held_out = _split(data, label, test, test_share, seed)
    classifier = SequentialClassifier(
        **options,
        random_state=seed,
        n_jobs=jobs,
        checkpoint=checkpoint,
        progress=not as_json and not dry_run,
    )
    path = _output(out, "circuit")
    _require_folder(path)
    _check_held_out(learned, held_out)
    if checkpoint is not None:
        _require_folder(checkpoint, "--checkpoint")
    if dry_run:
        _tell_plan(classifier, learned, path, as_json=as_json)
        return
    _fit(classifier, learned, checkpoint)
    classifier.save(path)
    results = {"training": classifier.evaluate(learned.rows, learned.labels)}
    if held_out is not None:
        results["held out"] = classifier.evaluate(held_out.rows, held_out.labels)
    report = {
        "path": path,
        "digest": document.digest(classifier.model_),
        "epochs": classifier.n_iter_,
        **{key.replace(" ", "_"): _evaluation(found) for key, found in results.items()},
    }
    text = fields(
        [
            ("wrote", path),
            ("epochs", classifier.n_iter_),
            *((name, _misses(found)) for name, found in results.items()),
            ("next", f"fieldpost serve {path}"),
        ]
    )
    show(report, text, as_json=as_json)


def _fit(classifier: SequentialClassifier, learned: Labelled, checkpoint: Path | None) -> None:
    """Trains; who breaks it off is told what is left, and how to go on."""
    if checkpoint is not None and checkpoint.exists():
        click.echo(f"Going on from {checkpoint}.", err=True)
    try:
        classifier.fit(learned.rows, learned.labels)
    except KeyboardInterrupt:
        if checkpoint is not None and checkpoint.exists():
            text = f"What was learned is in {checkpoint}: run the same command again to go on."
        elif checkpoint is not None:
            text = "No epoch was over yet: nothing was kept."
        else:
            text = "Nothing was kept: with --checkpoint FILE training goes on where it was."
        click.echo(text, err=True)
        raise


def _require_folder(path: Path, option: str = "--out") -> None:
    """Before the work, of which nothing could be written in the end."""
    from scoring.errors import UsageError

    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"lies in {path.parent}, which is no folder"
        raise UsageError(f"{path} {what}.", hint=f"Make the folder, or choose another {option}.")


def _split(
    data: Path, label: str, test: Path | None, share: float | None, seed: int
) -> tuple[Labelled, Labelled | None]:
    """The rows to learn from, and those to evaluate on."""
    from scoring.errors import UsageError
    from scoring.quantum.labelled import read_labelled

    found = read_labelled(data, label)
    if test is not None and share is not None:
        raise UsageError("Give either --test or --test-share, not both.")
    if test is not None:
        return found, read_labelled(test, label)
    if share is None:
        return found, None
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(found.rows))
    held = max(1, round(share * len(order)))
    return found.part(np.sort(order[held:])), found.part(np.sort(order[:held]))


def _check_held_out(learned: Labelled, held_out: Labelled | None) -> None:
    """Before training, which would end without its evaluation."""
    from scoring.errors import TrainingDataError

    if held_out is None:
        return
    width, held_width = learned.rows.shape[1], held_out.rows.shape[1]
    if width != held_width:
        raise TrainingDataError(
            f"The rows held out have {held_width} features; those to learn from have {width}."
        )
    known = set(learned.labels.tolist())
    strange = [label for label in held_out.labels.tolist() if label not in known]
    if strange:
        raise TrainingDataError(
            f"The label {strange[0]!r} is in rows that are held out, and in none to learn from.",
            hint="Give rows of every class to learn from; with --test-share, try another --seed.",
        )


def _tell_plan(
    classifier: SequentialClassifier, learned: Labelled, path: Path, *, as_json: bool
) -> None:
    """What training would do, after the same checks."""
    circuit = classifier.plan(learned.rows, learned.labels)
    classes = classifier.classes_.tolist()
    plan = {
        "rows": len(learned.rows),
        "features": learned.rows.shape[1],
        "classes": classes,
        "qubits": circuit.qubits,
        "gates": len(circuit.gates),
        "parameters": len(circuit.parameters),
        "path": path,
    }
    text = (
        f"Would learn {len(circuit.parameters)} angles of {len(circuit.gates)} gates on "
        f"{circuit.qubits} qubits from {len(learned.rows)} rows of {len(classes)} classes, and "
        f"write {path}."
    )
    show(plan, text, as_json=as_json)


@click.command("compile", help="Compile a circuit to ONNX, or write it as OpenQASM 3 or Q#.")
@click.argument("circuit", metavar="FILE|NAME")
@click.option("--out", type=_PATH, help="Default: beside the circuit, with another ending.")
@click.option(
    "--to",
    "target",
    type=click.Choice(sorted(_ENDINGS)),
    default="onnx",
    show_default=True,
    help="circuit: from OpenQASM 3 to Fieldpost's own format.",
)
@click.option(
    "--form",
    type=click.Choice(["auto", "folded", "fused"]),
    default="auto",
    show_default=True,
    help="One matrix, or several small ones; auto: what is faster.",
)
@click.option("--float32", is_flag=True, help="Half the size; probabilities are good to 1e-5.")
@click.option("--sample", type=_PATH, help="Rows to look at for those near the threshold.")
@click.option("--label", default="", metavar="COLUMN", help="The sample's column of labels.")
@changes
@common
def compile_(
    circuit: str,
    out: Path | None,
    target: str,
    form: str,
    float32: bool,
    sample: Path | None,
    label: str,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Writes a circuit in another form."""
    model, source = _open(circuit, workspace)
    path = out or source.parent / (_stem(source) + _ENDINGS[target])
    _require_folder(path)
    if target != "onnx":
        content = _written(model, target)
        _write(path, content, dry_run=dry_run)
        done = "Would write" if dry_run else "Wrote"
        show({"path": path, "bytes": len(content)}, f"{done} {path}.", as_json=as_json)
        return
    from scoring.quantum.compile.compiler import compile_circuit

    compiled = compile_circuit(
        model,
        form=form,  # type: ignore[arg-type] # click has checked it
        dtype="float32" if float32 else "float64",
    )
    report = _report(compiled, path) | _near(compiled, sample, label)
    _write(path, compiled.onnx, dry_run=dry_run)
    text = fields(
        [
            ("would write" if dry_run else "wrote", path),
            ("form", compiled.reason),
            ("near the threshold", _near_text(report)),
        ]
    )
    show(report, text, as_json=as_json)


def _written(model: Model, target: str) -> bytes:
    from scoring.errors import UnsupportedModelError
    from scoring.quantum import document
    from scoring.quantum.circuit import Circuit

    if target == "circuit":
        return document.dumps(model)
    if not isinstance(model, Circuit):
        raise UnsupportedModelError(
            "Several circuits, one against rest, cannot be one program.",
            hint="Train with --multiclass qubits for a single circuit.",
        )
    if target == "qasm":
        from scoring.quantum import qasm

        return qasm.dumps(model).encode()
    from scoring.quantum import qsharp

    return qsharp.dumps(model).encode()


def _report(compiled: CompiledCircuit, path: Path) -> dict[str, Any]:
    from scoring.quantum import document

    return {
        "path": path,
        "digest": document.digest(compiled.model),
        "forms": compiled.forms,
        "reason": compiled.reason,
        "dtype": compiled.dtype,
        "bytes": len(compiled.onnx),
    }


def _near(compiled: CompiledCircuit, sample: Path | None, label: str) -> dict[str, Any]:
    """How many rows of the sample lie so near the threshold that rounding decides their class."""
    if sample is None:
        return {}
    from scoring.quantum.compile.compiler import NEAR, near_threshold

    rows = _sample_rows(compiled.model, sample, label)
    tolerance = NEAR[compiled.dtype]
    near = near_threshold(compiled.class_probabilities(rows), tolerance)
    return {"rows": len(rows), "near_threshold": int(near.sum()), "tolerance": tolerance}


def _sample_rows(model: Model, sample: Path, label: str) -> Any:
    """The rows of a file that may hold their labels, too."""
    if label:
        from scoring.quantum.labelled import read_labelled

        return read_labelled(sample, label).rows
    from scoring.errors import InputError
    from scoring.quantum.describing import describe
    from scoring.sample import read_sample, to_inputs

    schema = describe(model)
    try:
        return to_inputs(read_sample(sample), schema)[schema.inputs[0].name]
    except InputError as error:
        error.hint = f"{error.hint} If a column holds labels, name it: --label COLUMN.".strip()
        raise


def _near_text(report: dict[str, Any]) -> str:
    if "rows" not in report:
        return ""
    return (
        f"{report['near_threshold']} of {report['rows']} rows (within {report['tolerance']:g}): "
        "rounding decides their class"
    )


@click.command(help="Tell how a circuit does on labelled rows.")
@click.argument("circuit", metavar="FILE|NAME")
@click.argument("data", type=_PATH)
@_LABEL
@common
def evaluate(circuit: str, data: Path, label: str, as_json: bool, workspace: str | None) -> None:
    """Prints misses, accuracy, the confusion matrix and a report by class."""
    from scoring.quantum.labelled import read_labelled
    from scoring.quantum.sources import estimator

    model, _ = _open(circuit, workspace)
    found = read_labelled(data, label)
    labels = found.labels
    if isinstance(model.classes[0], str):
        labels = labels.astype(str)
    result = estimator(model).evaluate(found.rows, labels)
    text = f"{_misses(result)}\n\n{_confusion(result)}\n\n{result.report.rstrip()}"
    show(_evaluation(result), text, as_json=as_json)


def _evaluation(found: Evaluation) -> dict[str, Any]:
    return {
        "misses": found.misses,
        "samples": found.samples,
        "accuracy": found.accuracy,
        "classes": found.classes,
        "confusion": found.confusion.tolist(),
    }


def _misses(found: Evaluation) -> str:
    return f"{found.misses} misses of {found.samples} ({found.accuracy:.2%})"


def _confusion(found: Evaluation) -> str:
    from scoring.commands.output import table

    headings = ("IS / TOLD", *map(str, found.classes))
    rows = zip(map(str, found.classes), found.confusion.tolist(), strict=True)
    return table(headings, [(name, *map(str, counts)) for name, counts in rows])


@click.command(help="Draw a circuit as text or as SVG.")
@click.argument("circuit", metavar="FILE|NAME")
@click.option("--svg", type=_PATH, help="Write an SVG file, instead of text to the terminal.")
@click.option("--parameters", is_flag=True, help="Show places of parameters, not their angles.")
@click.option("--width", type=click.IntRange(40), default=100, show_default=True)
@changes
@common
def draw(
    circuit: str,
    svg: Path | None,
    parameters: bool,
    width: int,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Draws a circuit."""
    from scoring.quantum import draw as drawing

    model, _ = _open(circuit, workspace)
    if svg is not None:
        _require_folder(svg, "--svg")
        _write(svg, drawing.to_svg(model, angles=not parameters).encode(), dry_run=dry_run)
        show({"path": svg}, f"{'Would write' if dry_run else 'Wrote'} {svg}.", as_json=as_json)
        return
    text = drawing.to_text(model, angles=not parameters, width=width)
    show({"text": text}, text.rstrip("\n"), as_json=as_json)


def _open(thing: str, workspace: str | None) -> tuple[Model, Path]:
    """A circuit from a file, of a registered model, or as `train --out NAME` wrote it.

    Returns:
        The circuit, and where its other forms go.
    """
    from scoring.errors import InvalidNameError, NotFoundError
    from scoring.quantum import sources

    path = Path(thing)
    if path.is_file() or thing.endswith(_FILE_ENDINGS):
        return sources.load(path), path
    try:
        return _registered(thing, workspace)
    except (NotFoundError, InvalidNameError) as error:
        trained = _output(thing, "circuit")
        if trained.is_file():
            return sources.load(trained), trained
        error.hint += f" There is no file {trained} either."
        raise


def _registered(ref: str, workspace: str | None) -> tuple[Model, Path]:
    from scoring.quantum import document
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        version = opened.models.get(ref)
        _require_circuit(version.format, ref)
        blob = opened.registry.blobs.path(version.files[0].digest)
        return document.load(blob), Path(version.name)


def _require_circuit(found: str, thing: str) -> None:
    from scoring.errors import UnsupportedModelError

    if found != "circuit":
        raise UnsupportedModelError(f"{thing} is of the format {found}, and no quantum circuit.")


def _output(name: str, kind: str) -> Path:
    path = Path(name)
    return path if path.suffix == ".json" else path.with_name(path.name + _ENDINGS[kind])


def _stem(path: Path) -> str:
    return path.name.removesuffix(".circuit.json") if path.name.endswith(".json") else path.stem


def _write(path: Path, content: bytes, *, dry_run: bool) -> None:
    from scoring.durable import write_bytes

    if not dry_run:
        write_bytes(path, content, what="the circuit")
