"""The faults that the doctor knows, and its report: what a fault means and how to mend it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from core.config.settings import LogMel
from core.data import prepared_corpora
from core.data.corpora import KNOWN_CORPORA
from core.media.spectrograms import MAX_SILENT_DBFS

REPORT_VERSION = 1  # of the json form
# dBFS of the peak. The quietest of 1,200 RAVDESS voices peaks at -46.8 dBFS: -50 keeps every voice
# of it, and spectrograms.MAX_SILENT_DBFS excludes next to none.
MAX_QUIET_PEAK_DBFS = -50.0
MIN_CLIP_SECONDS = LogMel().columns * LogMel().hop / LogMel().rate  # fills the 112 columns

SEVERITY_TITLES = {
    "error": "ERRORS: not usable as they are",
    "warning": "WARNINGS: usable, but you should know",
    "note": "NOTES",
}
RETRIEVAL_HINTS = {  # corpus -> how to get a file again
    "crema-d": "in the corpus' folder: git checkout -- . && git lfs pull",
    "ravdess": "download that actor's zip again (Zenodo record 1188976) and compare its md5 with "
    "the record's",
}
FAULT_KINDS = {  # kind -> severity, what it means, what to do ({again}: the retrieval hint)
    "pointer": ("error", "git-lfs pointers: a line of text stands where the media should be",
                "git lfs install && git lfs pull"),
    "empty": ("error", "files of zero bytes, of a download that broke off", "{again}"),
    "unreadable": ("error", "files that cannot be decoded: damaged, or no media at all", "{again}"),
    "unreachable": ("error", "files or folders that may not be read or are not there",
                    "do as the reason says; for a missing permission: chmod -R u+rX FOLDER, as "
                    "their owner"),
    "broken-archive": ("error", "zips that cannot be opened",
                       "download them again: they are damaged or were cut short"),
    "no-sound": ("error", "videos without sound that have no sound file either",
                 "put the wav of the same name beside them"),
    "silent": ("error", f"sounds without a voice: the mean of their channels stays below "
               f"{MAX_SILENT_DBFS:g} dBFS", "leave these clips out; save a stereo sound whose "
               "channels cancel each other as mono"),
    "silent-middle": ("warning", "sounds whose middle second is silent: another second is taken",
                      "listen to them first"),
    "too-short": ("warning", f"sounds below {MIN_CLIP_SECONDS:.2f} s, which cannot fill "
                  f"{LogMel().columns} columns: silence is added", "{again}; else leave them out"),
    "too-long": ("warning", "clips too long for one performance of one emotion: one second and at "
                 "most the first minute are taken",
                 "cut them to the performance, or leave them out"),
    "odd-face": ("warning", "faces that are taken, and that one should look at first",
                 "look at them; leave out what is no use"),
    "passed-over": ("note", "files of which no clip is made",
                    "rename or move those that should be clips"),
    "no-face": ("error", "no face in the frames looked at: an error picture, a black one, nobody "
                "in sight", "leave these clips out"),
    "cut-short": ("warning", "files that end before the length given in their header", "{again}"),
    "short-video": ("warning", f"videos below {MIN_CLIP_SECONDS:.2f} s: the face may not be that "
                    "of the voice's middle", "{again}; else nothing"),
    "no-duration": ("warning", "videos whose header gives no length",
                    "nothing to do: the frames are counted"),
    "quiet": ("warning", f"sounds whose peak is between {MAX_SILENT_DBFS:g} and "
              f"{MAX_QUIET_PEAK_DBFS:g} dBFS: hardly a voice", "listen to them first"),
    "stereo": ("warning", "sounds of several channels: their mean is taken",
               "nothing to do if all hold the voice"),
    "odd-rate": ("warning", "sounds of another sample rate than the corpus has: resampled",
                 "{again}, for the original rate"),
    "duplicate": ("warning", "one content under several names, perhaps under two labels",
                  "compare them, and leave all but one out"),
    "name-twice": ("warning", "one name with several contents: the first is taken",
                   "keep the right one, move the others away"),
    "no-video": ("warning", "sounds whose video is missing: a voice without a face", "{again}"),
    "no-wav": ("warning", "videos whose wav is missing: the video's own sound is taken", "{again}"),
    "missing-clips": ("warning", "official clips that are missing, of actors who are here",
                      "{again}"),
    "not-official": ("warning", "clips named like the corpus' own that it never had",
                     "move them away, unless you added them"),
    "wrong-name": ("warning", "media that are not named as the corpus' own: left out",
                   "rename them, or move them away"),
    "no-landmarks": ("warning", "pictures without clear landmarks: aligned by the median of the "
                     "others", "nothing to do if they are faces"),
    "video-without-sound": ("note", "videos without sound: the wav of the same name is taken",
                            "nothing to do"),
    "odd-name": ("note", "names with a single X, as in old copies of CREMA-D: read as XX",
                 "nothing to do"),
    "song": ("note", "songs of RAVDESS: left out", "nothing to do"),
    "nested-copy": ("note", "folders that hold the same files as others: each counts once",
                    "delete one of the two, to save space"),
    "link-loop": ("note", "links to folders that were listed already", "nothing to do"),
    "actors-without-video": ("note", "actors without any video: they have voices and no faces",
                             "download their videos, for their faces"),
    "actors-without-wav": ("note", "actors without any sound file: the videos' own sound is taken",
                           "nothing to do"),
    "count": ("note", "another number than the official corpus has",
              "nothing to do if a part of it is what you want"),
    "no-model": ("note", "no face was looked for, as the landmark model is missing",
                 "do as the reason says"),
}  # fmt: skip
PHASES = {  # phase of the examination -> its words in the report
    "names": "names and first bytes",
    "contents": "contents compared",
    "videos": "videos read",
    "sounds": "sounds heard",
}


@dataclass(frozen=True)
class Fault:
    """One kind of fault, with every file or clip that has it."""

    kind: str  # a key of FAULT_KINDS
    severity: str  # "error": unusable; "warning": prepare copes; "note"
    names: tuple[str, ...]  # sorted; inside the root, a zip's member as 'archive.zip!member'
    details: dict[str, str]  # name -> a reason or a figure, for some
    means: str
    fix: str


@dataclass(frozen=True)
class CorpusReport:
    """Result of `doctor.examine_corpus`."""

    corpus: str
    root: str  # name of the folder or file
    counts: dict[str, int]  # files, videos, sounds, pictures, clips, subjects
    faults: tuple[Fault, ...]  # errors first
    looked_at: dict[str, tuple[int, int]]  # phase -> how many of how many
    suspects: int  # clips searched for a face first, as something else was odd about them
    seconds: float  # taken
    budget: float  # seconds allowed

    def names(self) -> dict[str, set[str]]:
        """Kind of fault -> names."""
        return {fault.kind: set(fault.names) for fault in self.faults}


def make_fault(kind: str, findings: dict[str, str], corpus: str) -> Fault:
    """A fault of one kind from name -> detail."""
    severity, means, fix = FAULT_KINDS[kind]
    again = RETRIEVAL_HINTS.get(corpus, "copy or export these files again")
    details = {n: d for n, d in sorted(findings.items()) if d}
    return Fault(kind, severity, tuple(sorted(findings)), details, means, fix.format(again=again))


def to_dict(report: CorpusReport) -> dict:
    """A report as plain dicts and lists, ready for json."""
    more = {
        "faults": [
            dataclasses.asdict(f) | {"names": list(f.names), "count": len(f.names)}
            for f in report.faults
        ],
        "looked_at": {phase: list(counts) for phase, counts in report.looked_at.items()},
    }
    return {"version": REPORT_VERSION} | dataclasses.asdict(report) | more


def to_text(report: CorpusReport, most: int = 5) -> str:
    """A report for people: the first `most` names of each fault, what it means, what to do."""
    title = KNOWN_CORPORA[report.corpus].title if report.corpus in KNOWN_CORPORA else report.corpus
    counts = ", ".join(f"{n:,} {what}" for what, n in report.counts.items() if n)
    lines = [f"{title} in {report.root}: {counts}"]
    lines.append(f"Looked at for {report.seconds:.1f} s of at most {report.budget:g} s:")
    for phase, (done, total) in report.looked_at.items():
        if total and phase in PHASES:
            share = f"{done:,} of {total:,}, evenly spread" if done < total else f"all {total:,}"
            lines.append(f"  {PHASES[phase]}: {share}")
    done, total = report.looked_at["faces"]
    if total:
        order = f" ({report.suspects:,} that looked odd first, the rest evenly spread)"
        order = order if 0 < done < total else ""
        lines.append(f"  faces looked for in {done:,} of {total:,} clips{order}")
    for severity, heading in SEVERITY_TITLES.items():
        faults = [fault for fault in report.faults if fault.severity == severity]
        lines += ["", heading] if faults else []
        for fault in faults:
            lines.append(f"  {fault.kind} ({len(fault.names):,}): {fault.means}")
            if fault.kind == "passed-over":
                groups = prepared_corpora.group_passed_over(fault.details)
                lines += [
                    f"    {len(names):,} of {ending}: {reason}: {_name_some(names, most)}"
                    for ending, reason, names in groups
                ]
            else:
                details = {n: f" ({d})" for n, d in fault.details.items()}
                shown = [n + details.get(n, "") for n in fault.names]
                lines.append(f"    {_name_some(shown, most)}")
            lines.append(f"    -> {fault.fix}")
    return "\n".join([*lines, *([] if report.faults else ["", "No fault was found."])])


def _name_some(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
