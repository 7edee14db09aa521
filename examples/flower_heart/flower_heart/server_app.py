"""The coordinator. Beside an app without privagg: the import, the `with` and `release`."""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flower_heart.task import initial_arrays
from privagg.flower.doors import private_grid

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Flower's own strategy, on privagg's Grid."""
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4)
    rounds = int(context.run_config["num-server-rounds"])
    with private_grid(grid, resume=str(context.run_config["resume"])) as private:
        result = strategy.start(private, initial_arrays(), num_rounds=rounds)
        private.release(result.arrays)
