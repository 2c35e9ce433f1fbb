"""The side of a delivery agent: requests of qmgr(8) in, an outcome for each recipient out."""
