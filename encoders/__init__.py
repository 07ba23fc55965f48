"""From a subject's raw data to one vector; also the base every layer stands on."""
