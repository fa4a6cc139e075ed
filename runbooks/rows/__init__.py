"""Find lost rows on a branch of an earlier moment, and bring them back to production: exactly, or not at all.

In order: `survey.survey` (what is missing), `plan.make_plan`, `apply.apply`, `proof.prove_recovery`; and back again:
`undo.survey_undo`, `undo.apply_undo`. Each takes and gives frozen records that go into the journal as JSON.
"""
