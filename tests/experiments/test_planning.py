"""How long a sweep takes, said before it starts."""

import pytest
import torch

from core.config.presets import SMOKE
from core.config.settings import replace
from core.evaluation.augmentation import TableSettings
from core.evaluation.protocol import Cell
from core.experiments.sweeping import planning


class FixedTimes(planning.StepTimes):
    """A step of G takes a second, one of a classifier a tenth."""

    def of_gan(self, config):
        return 1.0

    def of_classifier(self, config, is_source):
        return 0.1


CPU = torch.device("cpu")
BASE = replace(
    SMOKE, f_s={"steps": 10}, f_t={"steps": 20}, gan={"steps": 7}, evaluate={"rows": ("S1",)}
)


def seconds(*configs, table=None):
    cells = [Cell(str(i), "", config) for i, config in enumerate(configs)]
    return planning.training_seconds(cells, CPU, table, FixedTimes(CPU))


def test_all_steps_count():
    f_s, of_row = 1.0, 2.0
    of_voices = 3 * of_row  # f_T, Q and the scorer
    assert seconds(BASE) == pytest.approx(7 + f_s + of_voices + of_row)
    table = TableSettings(seeds=2, stretch=3)
    rows = 2 * 3 * planning.ROWS_OF_TABLE * of_row
    assert seconds(BASE, table=table) == pytest.approx(seconds(BASE) + rows)


def test_a_trained_run_that_lacks_its_table_counts_the_tables_rows_alone():
    done, new = (Cell(name, "", replace(BASE, seed=k)) for k, name in enumerate(("done", "new")))
    table = TableSettings(seeds=2, stretch=3)
    found = planning.training_seconds([done, new], CPU, table, FixedTimes(CPU), trained=[done])
    rows = 2 * 3 * planning.ROWS_OF_TABLE * 2.0
    assert found == pytest.approx(seconds(new.config, table=table) + rows)


def test_classifiers_that_runs_share_count_once():
    other = replace(BASE, gan={"condition": "label"})
    assert seconds(BASE, other) == pytest.approx(seconds(BASE) + 7 + 2.0)
    elsewhere = replace(other, data={"fold": 1})
    assert seconds(BASE, elsewhere) == pytest.approx(2 * seconds(BASE))
    pair = [replace(c, data={"f_s_corpus": "others"}) for c in (BASE, elsewhere)]
    assert seconds(*pair) == pytest.approx(2 * seconds(BASE) - 1.0)  # one f_S for both folds


def test_an_f_s_of_several_networks_counts_so_often():
    several = replace(BASE, f_s={"networks": 3})
    assert seconds(several) == pytest.approx(seconds(BASE) + 2 * 1.0)


@pytest.mark.parametrize("generator", ["conv", "flow"])
def test_steps_are_timed_on_noise_once_each(generator):
    config = replace(BASE, gan={"generator": generator, "batch": 2}, f_s={"batch": 2})
    times = planning.StepTimes(CPU)
    first = planning.training_seconds([Cell("a", "", config)], CPU, None, times)
    kinds = dict(times.known)
    assert len(kinds) == 3
    assert all(0 < s < 10 for s in kinds.values())
    longer = replace(config, gan={"steps": 14, "condition": "label"})
    planning.training_seconds([Cell("b", "", longer)], CPU, None, times)
    assert first > 0
    assert kinds.items() <= times.known.items()
