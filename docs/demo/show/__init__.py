"""Everything that makes the gallery a show: its processes, its visitors, its accidents and its table."""
