"""What every run of the project needs, whichever system it trains; knows no flag of one."""
