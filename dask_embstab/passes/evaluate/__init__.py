"""How comparable are two runs? One read of the rows that match, one top-k of sampled queries."""
