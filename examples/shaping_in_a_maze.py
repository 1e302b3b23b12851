"""Potential-based shaping keeps the best way through a maze; a bonus for every step nearer makes the walker loop.

Run it: python examples/shaping_in_a_maze.py
"""

import numpy as np

from clew.reward.tabular import find_cell, maze_cells, maze_mdp, optimal_q, walk

MAZE = ["S.#.G", "...#.", ".#...", "....."]
STEPS = 40

world = maze_mdp(MAZE)
cells, start = maze_cells(MAZE), find_cell(MAZE, "S")
goal = cells[find_cell(MAZE, "G")]
nearness = -np.array([abs(cell.row - goal.row) + abs(cell.column - goal.column) for cell in cells], float)
nearer = np.maximum(nearness[None, None, :] - nearness[:, None, None], 0.0)

for name, rewarded in {
    "no shaping": world,
    "potential-based shaping": world.shaped(nearness),
    "bonus for every step nearer": world.with_reward(world.reward + nearer),
}.items():
    path = walk(rewarded, optimal_q(rewarded), start, STEPS)
    ends = f"reaches G in {len(path) - 1} moves" if world.terminal[path[-1]] else f"never reaches G in {STEPS} moves"
    print(f"{name}: {ends}: {' '.join(f'{cells[s].row},{cells[s].column}' for s in path[:14])}")
