"""Shows what a run does and did: metrics, alarms, console, episode log, watchdog, report."""
