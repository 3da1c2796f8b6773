"""Elements that several pages share: players, charts, choices, uploads, progress, summaries."""
