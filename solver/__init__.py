"""Cases in, results out: schema, runner, summary, plots and command line."""
