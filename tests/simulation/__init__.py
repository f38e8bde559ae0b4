"""The core in a simulation: the shipped code on a clock, a network and a store that are made from a seed."""
