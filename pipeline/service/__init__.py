"""The service: teams train nets over REST, each team its own; its database decides whose turn it is."""
