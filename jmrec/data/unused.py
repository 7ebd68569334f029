"""Keys of ``dataset.toml`` that are set and have no effect."""

from collections.abc import Iterator

from jmrec.data.description import Description


def unused(description: Description) -> Iterator[str]:
    """Yield a sentence, without a full stop, for each key that is set and has no effect.

    Example:
      >>> list(unused(Description(given=frozenset(["interactions.label_means"]))))
      ['dataset.toml, [interactions]: label_means has no effect, as no label is read; take it out,
        or name it as label = "..."']
    """
    items, events = description.items, description.interactions
    files = (*description.files("items"), *description.files("interactions"))
    no_text = all(name.lower().endswith(".parquet") for name in files)
    structured = (".parquet", ".jsonl", ".jsonl.gz", ".ndjson")
    no_csv = all(name.lower().endswith(structured) for name in files)
    numeric = items.number_columns or events.rating or events.order or events.label
    numeric = numeric or description.value.column
    named = 'name the column of times as [interactions] time = "..."'
    lists = "name columns of lists as list_columns"
    times = events.time or items.available_from or items.available_until
    rules = [
        (
            "dataset.session_gap_minutes",
            bool(events.session),
            f"sessions are those of the column {events.session!r}",
            'write [interactions] session = "" to make them of users and pauses',
        ),
        ("dataset.session_gap_minutes", not (events.session or events.time), "no time is", named),
        ("dataset.time_format", not times, "no time is", named),
        ("dataset.decimal", not numeric, "no number is", "name a column of numbers"),
        ("dataset.encoding", no_text, "no CSV file is", "name the CSV files"),
        ("dataset.delimiter", no_csv, "no CSV file is", "name the CSV files"),
        ("items.list_separator", not (items.list_columns or no_csv), "no list is", lists),
        ("interactions.label_means", not events.label, "no label is", 'name it as label = "..."'),
    ]
    for place, idle, why, remedy in rules:
        table, key = place.split(".")
        if idle and place in description.given:
            why = why if why.startswith("sessions") else f"{why} read"
            says = f"{key} has no effect, as {why}; take it out, or {remedy}"
            yield f"{description.toml}, [{table}]: {says}"
