# A Python function: `handler` of `main.py`.
#
#   lyra deploy examples/python-hello
#   lyra invoke python-hello -d '{"name":"Ada"}'


def handler(event, context):
    print("greeting", event)
    return {"message": f"Hello, {event.get('name', 'world')}!", "function": context.function_name}
