"""Workers: each claims work, runs it in a child of its own, and tells what came of it."""
