"""What random worlds brought to light, each as small as it gets."""

from __future__ import annotations

from pathlib import Path

from tests.rows.cluster import Pairs, recover, texts


def test_a_row_kept_out_by_a_partial_unique_index_takes_along_what_points_at_it_in_the_same_table(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(
        """
        CREATE TABLE node (id int PRIMARY KEY, mail text, up int REFERENCES node ON DELETE CASCADE);
        CREATE UNIQUE INDEX ON node (mail) WHERE mail IS NOT NULL;
        INSERT INTO node VALUES (1, 'a', NULL), (2, 'b', 1), (3, 'c', NULL);
        """
    )
    pair.app.execute("DELETE FROM node; INSERT INTO node VALUES (9, 'a', NULL)")
    done = recover(pair, tmp_path, "node")
    assert texts(pair.production, "public.node") == ["(3,c,)", "(9,a,)"]
    assert (done.applied.inserted, done.applied.tables[0].in_conflict) == (1, 2)


def test_a_pointer_that_is_still_there_is_not_listed_as_lost(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        """
        CREATE TABLE p (id int PRIMARY KEY, v int);
        CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON DELETE SET DEFAULT);
        INSERT INTO p VALUES (1, 1); INSERT INTO c VALUES (1, 1);
        """
    )
    pair.app.execute("UPDATE p SET v = 2")
    assert recover(pair, tmp_path, "p").plan.found.loose == ()
