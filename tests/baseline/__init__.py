"""What others do, written down to be broken by the same machines: the measure for what the protocol is worth."""
