"""Where calls happen: one file a library; everything is recorded through `apmkit.record`."""
