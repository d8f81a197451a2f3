"""Who this process is: host, locks, logs, stop, watchdog, forks, and where its files on their way lie."""
