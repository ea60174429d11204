"""Every way to make a network faster, at the same measured latency and with the same training: which loses least?

    python -m benchmarks.methods                                          # all that is not done yet
    python -m benchmarks.methods --only resnet20 --budget 2 --seeds 1     # the rows of one network at one budget
    python -m benchmarks.methods --stage time                             # one stage; ``time`` on a quiet machine
    python -m benchmarks.methods --only resnet20 --stage publish page     # what was made here into the repository

A row is a network, a method, a budget (how many times as fast) and a seed. Latency depends on shapes alone, so it is
known before anything is trained:

1. ``tables``: one profile and one importance table a network, for all methods that plan (``bench``).
2. ``shapes``: each setting of each method gives a *ladder* of networks, the least changed first (``ladder``).
3. ``climb``: all of them are timed, interleaved with the original. At a budget, a setting stands for its first rung
   that is measured to meet it, and again when it is timed for longer: a method that knows only how much it prunes is
   aimed as well as one that plans.
4. ``trials``: where a method has several settings, at each budget the one is taken that has the least held-out loss
   after a short training, the same for all (``rows``).
5. ``rows``: all train alike, and the test data is read once a row (``rows``).
6. ``time``: the networks that came out, interleaved with the original, in pieces; this is the latency of a row.
7. ``compare``: what was made here beside what is committed in benchmarks/results/: does it lie within the spread of
   the seeds (``standings``)?
8. ``publish``: what was made here takes the place of what is committed. Only where it is asked for by name.
9. ``page``: docs/results.md and its picture, from benchmarks/results/ (``page``).

With ``--device cuda`` fits are solved, networks trained and scored there, a step being one CUDA graph (``graphed``).
Several processes of the same command share trials and rows. A machine that only trains needs no latencies: plans, what
is pruned in steps, shapes and speeds are files of the folder, which two machines may hand to each other.

Everything is kept in runs/methods/NETWORK; the same command goes on where it was stopped. Finished rows are in
results.json there, with machine, versions and date. Latencies are those of ONNX Runtime on one thread.
Torch-Pruning is ``pip install '.[peers]'``; without it, its rows are left out.

To add a network: one more ``Case`` in ``cases``. To add a method: a ``Contender`` (``contender`` says what it must
answer), and its line in ``METHODS`` (``registry``).
"""
