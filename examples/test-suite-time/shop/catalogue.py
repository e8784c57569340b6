"""Goods, prices and what is left of them."""

import sqlite3


class Catalogue:
    """All goods of the shop, in one database."""

    def __init__(self, path):
        self.database = sqlite3.connect(path)
        self.database.execute("CREATE TABLE goods (name TEXT PRIMARY KEY, cents INTEGER, left INTEGER)")

    def add(self, name, cents, left):
        with self.database:
            self.database.execute("INSERT INTO goods VALUES (?, ?, ?)", (name, cents, left))

    def add_all(self, goods):
        with self.database:
            self.database.executemany("INSERT INTO goods VALUES (?, ?, ?)", goods)

    def price(self, name):
        return self._one("SELECT cents FROM goods WHERE name = ?", name)

    def left(self, name):
        return self._one("SELECT left FROM goods WHERE name = ?", name)

    def sell(self, name, count=1):
        if self.left(name) < count:
            raise ValueError(f"not enough {name}")
        with self.database:
            self.database.execute("UPDATE goods SET left = left - ? WHERE name = ?", (count, name))

    def cheapest(self):
        return self._one("SELECT name FROM goods ORDER BY cents, name LIMIT ?", 1)

    def close(self):
        self.database.close()

    def _one(self, query, *values):
        found = self.database.execute(query, values).fetchone()
        if found is None:
            raise KeyError(values[0])
        return found[0]
