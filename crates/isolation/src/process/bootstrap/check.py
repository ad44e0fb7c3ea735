"""Says whether a Python file can be compiled, and whether it has the function that is asked for. Prints one line of JSON."""

import ast
import json
import symtable
import sys


def check(path, function):
    with open(path, "rb") as file:
        source = file.read()
    try:
        tree = ast.parse(source, path)
        compile(source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        return {"line": error.lineno or 1, "column": error.offset or 1, "message": f"{type(error).__name__}: {error.msg}"}
    except (ValueError, RecursionError, MemoryError) as error:
        return {"message": f"{type(error).__name__}: {error}"}
    # Names may come from where no reader sees them: then only a call can tell.
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(name.name == "*" for name in node.names):
            return {}
        if isinstance(node, ast.Name) and node.id in ("globals", "exec", "eval", "setattr", "vars", "__getattr__"):
            return {}
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            return {}
    name = function.split(".")[0]
    text = source.decode("utf-8", "surrogateescape")
    try:
        table = symtable.symtable(text, path, "exec")
    except (SyntaxError, ValueError):
        return {}
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    bound |= {
        s.get_name() for scope in table.get_children() for s in scope.get_symbols() if s.is_declared_global()
    }
    if name not in bound:
        return {"missing": name}
    return {}


print(json.dumps(check(sys.argv[1], sys.argv[2])))
