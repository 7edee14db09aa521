"""A hospital. Beside an app without privagg: the import and `mods`."""

from __future__ import annotations

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_heart.task import load_table, train_model
from privagg.flower.doors import data_of, private_updates

app = ClientApp(mods=[private_updates()])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on the hospital's own table; the mod is what sends anything."""
    x, y = load_table(data_of(context))
    arrays = train_model(
        message.content["arrays"],
        x,
        y,
        rate=float(context.run_config["learning-rate"]),
        steps=int(context.run_config["local-steps"]),
    )
    metrics = MetricRecord({"num-examples": len(y)})  # stays at the hospital
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
