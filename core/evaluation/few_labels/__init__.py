"""What generated voices are worth where few voices have labels: rows, table, curve, report."""
