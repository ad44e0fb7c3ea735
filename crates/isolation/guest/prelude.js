// The globals that are not part of ECMAScript. Evaluated once, into the base image. What they need of the built-ins is
// taken here, so that a script that replaces built-ins breaks its own code and not its logs.
(function (native) {
  'use strict';
  const { log, kind } = native;
  const { apply, ownKeys, getOwnPropertyDescriptor, getPrototypeOf, defineProperty } = Reflect;
  const bind = (method) => (self, a, b, c) => apply(method, self, [a, b, c]);
  const getter = (object, name) => bind(getOwnPropertyDescriptor(object, name).get);
  const slice = bind(String.prototype.slice), indexOf = bind(String.prototype.indexOf);
  const charCodeAt = bind(String.prototype.charCodeAt), split = bind(String.prototype.split);
  const replaceAll = bind(String.prototype.replaceAll), wellFormed = bind(String.prototype.toWellFormed);
  const join = bind(Array.prototype.join);
  const errorStack = getter(Error.prototype, 'stack');
  const errorString = bind(Error.prototype.toString), regexpString = bind(RegExp.prototype.toString);
  const dateTime = bind(Date.prototype.getTime), dateISO = bind(Date.prototype.toISOString);
  const symbolString = bind(Symbol.prototype.toString), bigintString = bind(BigInt.prototype.toString);
  const mapForEach = bind(Map.prototype.forEach), setForEach = bind(Set.prototype.forEach);
  const mapSet = bind(Map.prototype.set), setAdd = bind(Set.prototype.add);
  const mapSize = getter(Map.prototype, 'size'), setSize = getter(Set.prototype, 'size');
  const mapGet = bind(Map.prototype.get), mapHas = bind(Map.prototype.has);
  const TypedArray = getPrototypeOf(Uint8Array);
  const typedTag = getter(TypedArray.prototype, Symbol.toStringTag);
  const typedBuffer = getter(TypedArray.prototype, 'buffer'), typedOffset = getter(TypedArray.prototype, 'byteOffset');
  const typedBytes = getter(TypedArray.prototype, 'byteLength'), typedLength = getter(TypedArray.prototype, 'length');
  const typedSet = bind(TypedArray.prototype.set);
  const viewBuffer = getter(DataView.prototype, 'buffer'), viewOffset = getter(DataView.prototype, 'byteOffset');
  const viewBytes = getter(DataView.prototype, 'byteLength');
  const bufferBytes = getter(ArrayBuffer.prototype, 'byteLength'), bufferSlice = bind(ArrayBuffer.prototype.slice);
  const wrappers = [Number, String, Boolean, Symbol, BigInt].map((c) => [c, bind(c.prototype.valueOf)]);
  const NativeMap = Map, NativeSet = Set, NativeDate = Date, NativeRegExp = RegExp, NativeArrayBuffer = ArrayBuffer;
  const NativeUint8Array = Uint8Array, NativeDataView = DataView, NativeTypeError = TypeError, NativeString = String;
  const NativeRangeError = RangeError, NativeDOMException = DOMException, NativeError = Error, NativeObject = Object;
  const NativeNumber = Number, NativeArray = Array, NativeProxy = Proxy;
  const errors = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
  const typed = { Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array,
    BigInt64Array, BigUint64Array, Float16Array, Float32Array, Float64Array };
  const parseInteger = parseInt, parseNumber = parseFloat, stringify = JSON.stringify, parse = JSON.parse;
  const define = (name, value) => defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });

  // === console ===

  const LINE = 16384; // characters of a log line that are kept
  const DEPTH = 4, ITEMS = 100, KEYS = 100, TEXT = 10000;

  // Shows a value in the way of Node's util.inspect. Runs no getters and no traps.
  function inspect(root) {
    let budget = LINE;
    const path = [];
    const quote = (text) => {
      const shown = text.length > TEXT ? slice(text, 0, TEXT) : text;
      let quoted = stringify(shown);
      if (indexOf(shown, "'") < 0) {
        quoted = "'" + replaceAll(slice(quoted, 1, -1), '\\"', '"') + "'";
      }
      return shown === text ? quoted : `${quoted}... ${text.length - TEXT} more characters`;
    };
    const primitive = (value) => {
      switch (typeof value) {
        case 'string': return quote(value);
        case 'bigint': return bigintString(value) + 'n';
        case 'symbol': return symbolString(value);
        case 'number': return value === 0 && 1 / value < 0 ? '-0' : `${value}`;
        default: return `${value}`;
      }
    };
    const own = (object, key) => {
      const found = getOwnPropertyDescriptor(object, key);
      return found && 'value' in found ? found.value : undefined;
    };
    const className = (object) => {
      for (let o = object, i = 0; o !== null && i < 100; o = getPrototypeOf(o), i++) {
        if (kind(o) === 'proxy') return 'Object';
        const constructor = own(o, 'constructor');
        if (typeof constructor === 'function' && kind(constructor) === 'function') {
          const name = own(constructor, 'name');
          if (typeof name === 'string' && name !== '') return name;
        }
      }
      return null;
    };
    const block = (prefix, open, parts, close) => {
      const head = prefix === '' ? '' : prefix + ' ';
      if (parts.length === 0) return `${head}${open}${close}`;
      let length = prefix.length + parts.length * 2, lines = false;
      for (let i = 0; i < parts.length; i++) {
        length += parts[i].length;
        if (indexOf(parts[i], '\n') >= 0) lines = true;
      }
      if (!lines && length <= 72) return `${head}${open} ${join(parts, ', ')} ${close}`;
      const indented = [];
      for (let i = 0; i < parts.length; i++) indented[i] = '  ' + replaceAll(parts[i], '\n', '\n  ');
      return `${head}${open}\n${join(indented, ',\n')}\n${close}`;
    };
    const showKey = (key) => {
      if (typeof key === 'symbol') return `[${symbolString(key)}]`;
      let plain = key.length > 0 && key.length < 100;
      for (let i = 0; plain && i < key.length; i++) {
        const c = charCodeAt(key, i);
        plain = (c >= 97 && c <= 122) || (c >= 65 && c <= 90) || c === 95 || c === 36 || (i > 0 && c >= 48 && c <= 57);
      }
      return plain ? key : quote(key);
    };
    const fields = (object, parts, skip) => {
      const keys = ownKeys(object);
      let shown = 0;
      for (let i = 0; i < keys.length && budget > 0; i++) {
        const key = keys[i];
        const found = getOwnPropertyDescriptor(object, key);
        if (found === undefined || !found.enumerable || skip(key)) continue;
        if (shown++ >= KEYS) {
          parts[parts.length] = '... more properties';
          break;
        }
        const text = 'value' in found ? show(found.value)
          : found.get ? (found.set ? '[Getter/Setter]' : '[Getter]') : '[Setter]';
        parts[parts.length] = `${showKey(key)}: ${text}`;
      }
    };
    const more = (parts, count) => {
      if (count > ITEMS) parts[parts.length] = `... ${count - ITEMS} more item${count === ITEMS + 1 ? '' : 's'}`;
    };
    const none = () => false;
    const isIndex = (key) => typeof key === 'string' && key.length > 0 && charCodeAt(key, 0) >= 48
      && charCodeAt(key, 0) <= 57;
    const items = (array, length, parts) => {
      let holes = 0;
      for (let i = 0; i < length && i < ITEMS && budget > 0; i++) {
        const found = getOwnPropertyDescriptor(array, `${i}`);
        if (found === undefined) holes++;
        if (holes > 0 && (found !== undefined || i === length - 1 || i === ITEMS - 1)) {
          parts[parts.length] = `<${holes} empty item${holes === 1 ? '' : 's'}>`;
          holes = 0;
        }
        if (found !== undefined) parts[parts.length] = 'value' in found ? show(found.value) : '[Getter]';
      }
      more(parts, length);
    };
    const error = (value) => {
      let head;
      try { head = errorString(value); } catch { head = 'Error'; }
      const parts = [];
      let stack = own(value, 'stack');
      try { stack ??= errorStack(value); } catch { stack = ''; }
      let text = typeof stack !== 'string' || stack === '' ? `[${head}]`
        : indexOf(stack, head) === 0 ? stack : `${head}\n${stack}`;
      while (text.length > 0 && charCodeAt(text, text.length - 1) === 10) text = slice(text, 0, -1);
      const cause = getOwnPropertyDescriptor(value, 'cause');
      if (cause && 'value' in cause) parts[parts.length] = `[cause]: ${show(cause.value)}`;
      const several = getOwnPropertyDescriptor(value, 'errors');
      if (several && 'value' in several) parts[parts.length] = `[errors]: ${show(several.value)}`;
      fields(value, parts, (key) => key === 'stack' || key === 'message' || key === 'cause' || key === 'errors');
      return parts.length === 0 ? text : block(text, '{', parts, '}');
    };
    const object = (value, what) => {
      const name = className(value), parts = [];
      const prefix = name === null ? '[Object: null prototype]' : name === 'Object' ? '' : name;
      switch (what) {
        case 'array': {
          const length = own(value, 'length');
          items(value, length, parts);
          fields(value, parts, isIndex);
          return block(name === 'Array' ? '' : `${name}(${length})`, '[', parts, ']');
        }
        case 'typed': {
          const length = typedLength(value);
          for (let i = 0; i < length && i < ITEMS; i++) parts[i] = primitive(value[i]);
          more(parts, length);
          return block(`${typedTag(value)}(${length})`, '[', parts, ']');
        }
        case 'buffer': {
          const length = bufferBytes(value);
          const bytes = new NativeUint8Array(value);
          for (let i = 0; i < length && i < 50; i++) parts[i] = (bytes[i] < 16 ? '0' : '') + bytes[i].toString(16);
          return `ArrayBuffer { [Uint8Contents]: <${join(parts, ' ')}${length > 50 ? ' ...' : ''}>, byteLength: ${length} }`;
        }
        case 'map':
          mapForEach(value, (v, k) => {
            if (parts.length < ITEMS && budget > 0) parts[parts.length] = `${show(k)} => ${show(v)}`;
          });
          more(parts, mapSize(value));
          return block(`${name}(${mapSize(value)})`, '{', parts, '}');
        case 'set':
          setForEach(value, (v) => {
            if (parts.length < ITEMS && budget > 0) parts[parts.length] = show(v);
          });
          more(parts, setSize(value));
          return block(`${name}(${setSize(value)})`, '{', parts, '}');
        case 'date': {
          const time = dateTime(value);
          return time === time ? dateISO(value) : 'Invalid Date';
        }
        case 'regexp': return regexpString(value);
        case 'error': return error(value);
        case 'promise': {
          const state = native.state(value);
          parts[0] = state === 0 ? '<pending>' : (state === 2 ? '<rejected> ' : '') + show(native.settled(value));
          return block('Promise', '{', parts, '}');
        }
        case 'function': {
          const called = own(value, 'name');
          fields(value, parts, none);
          const text = typeof called === 'string' && called !== '' ? `[Function: ${called}]` : '[Function (anonymous)]';
          return parts.length === 0 ? text : block(text, '{', parts, '}');
        }
        case 'weakmap': case 'weakset': case 'weakref': case 'dataview': return `${name} { <items unknown> }`;
        default: {
          for (let i = 0; i < wrappers.length; i++) {
            let inner;
            try { inner = wrappers[i][1](value); } catch { continue; }
            return `[${wrappers[i][0].name}: ${primitive(inner)}]`;
          }
          fields(value, parts, none);
          return block(prefix, '{', parts, '}');
        }
      }
    };
    function show(value) {
      if (budget <= 0) return '...';
      let text;
      if ((typeof value !== 'object' && typeof value !== 'function') || value === null) {
        text = primitive(value);
      } else {
        const what = kind(value);
        if (what === 'proxy') {
          text = '[Proxy]';
        } else {
          for (let i = 0; i < path.length; i++) if (path[i] === value) return '[Circular]';
          if (path.length > DEPTH) {
            text = what === 'array' ? '[Array]' : what === 'function' ? '[Function]' : `[${className(value) ?? 'Object'}]`;
          } else {
            path[path.length] = value;
            text = object(value, what);
            path.length--;
          }
        }
      }
      budget -= text.length;
      return text;
    }
    return show(root);
  }

  const asText = (value) => (typeof value === 'string' ? value : inspect(value));

  function format(values) {
    let text = '', next = 0;
    if (values.length > 1 && typeof values[0] === 'string') {
      const pattern = values[0].length > LINE ? slice(values[0], 0, LINE) : values[0];
      next = 1;
      let from = 0;
      for (;;) {
        const at = indexOf(pattern, '%', from);
        if (at < 0 || at === pattern.length - 1) break;
        const code = pattern[at + 1];
        let shown;
        if (code === '%') shown = '%';
        else if (next < values.length) {
          const value = values[next];
          if (code === 's') shown = typeof value === 'object' || typeof value === 'function' ? inspect(value) : typeof value === 'symbol' ? symbolString(value) : `${value}`;
          else if (code === 'd') shown = typeof value === 'object' || typeof value === 'symbol' ? 'NaN' : typeof value === 'bigint' ? `${value}n` : `${NativeNumber(value)}`;
          else if (code === 'i') shown = typeof value === 'object' || typeof value === 'symbol' ? 'NaN' : typeof value === 'bigint' ? `${value}n` : `${parseInteger(value, 10)}`;
          else if (code === 'f') shown = typeof value === 'symbol' || typeof value === 'object' ? 'NaN' : `${parseNumber(value)}`;
          else if (code === 'j') { try { shown = `${stringify(value)}`; } catch { shown = '[Circular]'; } }
          else if (code === 'o' || code === 'O') shown = inspect(value);
          else if (code === 'c') shown = '';
          if (shown !== undefined) next++;
        }
        text += slice(pattern, from, at) + (shown === undefined ? '%' + code : shown);
        from = at + 2;
      }
      text += slice(pattern, from);
    }
    for (let i = next; i < values.length && text.length < LINE; i++) text += (i > 0 ? ' ' : '') + asText(values[i]);
    return text.length > LINE ? slice(text, 0, LINE) : text;
  }

  let indent = '';
  const counts = new NativeMap(), timers = new NativeMap();
  function write(level, values) {
    let text;
    try { text = format(values); } catch { text = '[something that can\'t be shown]'; }
    log(level, indent === '' ? text : indent + replaceAll(text, '\n', '\n' + indent));
  }
  const writer = (level) => (...values) => write(level, values);
  const since = (label) => `${label}: ${(native.elapsed() - mapGet(timers, label)).toFixed(3)}ms`;
  const labelOf = (label) => (label === undefined ? 'default' : `${label}`);
  const console = {
    log: writer(1), info: writer(1), debug: writer(0), warn: writer(2), error: writer(3),
    trace(...values) {
      const at = new NativeError().stack;
      const frames = typeof at === 'string' ? split(at, '\n').slice(1).join('\n') : '';
      write(3, [`Trace: ${format(values)}\n${frames}`]);
    },
    assert(condition, ...values) {
      if (!condition) write(3, values.length === 0 ? ['Assertion failed'] : ['Assertion failed:', ...values]);
    },
    dir: (value) => write(1, [inspect(value)]),
    table: writer(1),
    group(...values) {
      if (values.length > 0) write(1, values);
      if (indent.length < 40) indent += '  ';
    },
    groupEnd() { indent = slice(indent, 2); },
    count(label) {
      const name = labelOf(label), count = (mapGet(counts, name) ?? 0) + 1;
      mapSet(counts, name, count);
      write(1, [`${name}: ${count}`]);
    },
    countReset(label) { mapSet(counts, labelOf(label), 0); },
    time(label) { mapSet(timers, labelOf(label), native.elapsed()); },
    timeLog(label, ...values) {
      if (mapHas(timers, labelOf(label))) write(1, [since(labelOf(label)), ...values]);
    },
    timeEnd(label) { if (mapHas(timers, labelOf(label))) write(1, [since(labelOf(label))]); },
  };
  console.groupCollapsed = console.group;
  for (const name of ownKeys(console)) defineProperty(console[name], 'name', { value: name });
  define('console', console);

  // === structuredClone ===

  const refuse = (what) => { throw new NativeDOMException(`${what} could not be cloned.`, 'DataCloneError'); };

  function clone(root) {
    const seen = new NativeMap();
    const copy = (value) => {
      if (typeof value === 'symbol') refuse(symbolString(value));
      if (typeof value === 'function') refuse('a function');
      if (typeof value !== 'object' || value === null) return value;
      if (mapHas(seen, value)) return mapGet(seen, value);
      const keep = (made) => { mapSet(seen, value, made); return made; };
      switch (kind(value)) {
        case 'array': {
          const made = keep(new NativeArray(value.length));
          fields(value, made);
          return made;
        }
        case 'date': return keep(new NativeDate(dateTime(value)));
        case 'regexp': return keep(new NativeRegExp(value.source, value.flags));
        case 'buffer': return keep(bufferSlice(value, 0, bufferBytes(value)));
        case 'typed': {
          const buffer = copy(typedBuffer(value));
          return keep(new typed[typedTag(value)](buffer, typedOffset(value), typedLength(value)));
        }
        case 'dataview': return keep(new NativeDataView(copy(viewBuffer(value)), viewOffset(value), viewBytes(value)));
        case 'map': {
          const made = keep(new NativeMap()), entries = [];
          mapForEach(value, (v, k) => { entries[entries.length] = [k, v]; });
          for (let i = 0; i < entries.length; i++) mapSet(made, copy(entries[i][0]), copy(entries[i][1]));
          return made;
        }
        case 'set': {
          const made = keep(new NativeSet()), entries = [];
          setForEach(value, (v) => { entries[entries.length] = v; });
          for (let i = 0; i < entries.length; i++) setAdd(made, copy(entries[i]));
          return made;
        }
        case 'error': {
          const name = `${value.name}`;
          const made = keep(new (errors[name] ?? NativeError)());
          for (const key of ['message', 'cause']) {
            const found = getOwnPropertyDescriptor(value, key);
            if (found && 'value' in found) {
              const inner = key === 'cause' ? copy(found.value) : `${found.value}`;
              defineProperty(made, key, { value: inner, writable: true, configurable: true });
            }
          }
          const stack = `${value.stack}`;
          defineProperty(made, 'stack', { value: stack, writable: true, configurable: true });
          return made;
        }
        case 'promise': case 'proxy': case 'weakmap': case 'weakset': case 'weakref':
          return refuse(`a ${kind(value)}`);
        default: {
          for (let i = 0; i < wrappers.length; i++) {
            let inner;
            try { inner = wrappers[i][1](value); } catch { continue; }
            if (typeof inner === 'symbol') refuse('a symbol');
            return keep(NativeObject(inner));
          }
          const made = keep({});
          fields(value, made);
          return made;
        }
      }
    };
    const fields = (from, to) => {
      const keys = NativeObject.keys(from);
      for (let i = 0; i < keys.length; i++) {
        const value = copy(from[keys[i]]);
        defineProperty(to, keys[i], { value, writable: true, enumerable: true, configurable: true });
      }
    };
    return copy(root);
  }
  define('structuredClone', function structuredClone(value, options) {
    if (arguments.length === 0) throw new NativeTypeError('structuredClone needs a value');
    const made = clone(value);
    const transfer = options?.transfer;
    if (transfer !== undefined) for (const buffer of transfer) if (kind(buffer) === 'buffer') buffer.transfer();
    return made;
  });

  // === text ===

  // Buffer, offset and length of what Web APIs call a BufferSource.
  const bytesOf = (source) => {
    switch (typeof source === 'object' && source !== null ? kind(source) : '') {
      case 'buffer': return [source, 0, bufferBytes(source)];
      case 'typed': return [typedBuffer(source), typedOffset(source), typedBytes(source)];
      case 'dataview': return [viewBuffer(source), viewOffset(source), viewBytes(source)];
      default: throw new NativeTypeError('expected an ArrayBuffer or a view of one');
    }
  };

  class TextEncoder {
    get encoding() { return 'utf-8'; }
    encode(text = '') { return new NativeUint8Array(native.encode(wellFormed(`${text}`))); }
    encodeInto(text, target) {
      const source = wellFormed(`${text}`), room = typedBytes(target);
      let read = 0, written = 0;
      while (read < source.length) {
        const point = source.codePointAt(read);
        const size = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
        if (written + size > room) break;
        written += size;
        read += size === 4 ? 2 : 1;
      }
      typedSet(target, new NativeUint8Array(native.encode(slice(source, 0, read))));
      return { read, written };
    }
    get [Symbol.toStringTag]() { return 'TextEncoder'; }
  }

  const FATAL = 1, KEEP_BOM = 2, PIECE = 1 << 20;
  // Bytes at the end that may be the start of a character whose rest comes in the next chunk.
  function unfinished(encoding, bytes) {
    const length = typedLength(bytes);
    if (encoding === 'utf-8') {
      for (let back = 1; back <= 3 && back <= length; back++) {
        const byte = bytes[length - back];
        if (byte >= 0xc0) return (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) > back ? back : 0;
        if (byte < 0x80) return 0;
      }
      return 0;
    }
    if (encoding === 'utf-16le' || encoding === 'utf-16be') {
      const odd = length % 2;
      if (length - odd < 2) return odd;
      const high = bytes[length - odd - (encoding === 'utf-16le' ? 1 : 2)];
      return high >= 0xd8 && high < 0xdc ? odd + 2 : odd;
    }
    // Single-byte encodings have none; the others are decoded as a whole, at the end.
    return multibyte[encoding] === true ? length : 0;
  }
  const multibyte = { __proto__: null, gbk: true, gb18030: true, big5: true, 'euc-jp': true, 'iso-2022-jp': true,
    shift_jis: true, 'euc-kr': true };

  class TextDecoder {
    #encoding; #fatal; #keepBom; #rest = null; #started = false;
    constructor(label = 'utf-8', options = {}) {
      const encoding = native.encoding(`${label}`);
      if (encoding === undefined) throw new NativeRangeError(`the encoding "${label}" is not supported`);
      this.#encoding = encoding;
      this.#fatal = !!options?.fatal;
      this.#keepBom = !!options?.ignoreBOM;
    }
    get encoding() { return this.#encoding; }
    get fatal() { return this.#fatal; }
    get ignoreBOM() { return this.#keepBom; }
    decode(source, options) {
      const stream = !!options?.stream;
      let [buffer, offset, length] = source === undefined ? [new NativeArrayBuffer(0), 0, 0] : bytesOf(source);
      if (this.#rest !== null) {
        const joined = new NativeUint8Array(typedLength(this.#rest) + length);
        typedSet(joined, this.#rest);
        typedSet(joined, new NativeUint8Array(buffer, offset, length), typedLength(this.#rest));
        [buffer, offset, length] = [typedBuffer(joined), 0, typedLength(joined)];
        this.#rest = null;
      }
      if (stream) {
        const hold = unfinished(this.#encoding, new NativeUint8Array(buffer, offset, length));
        if (hold > 0) this.#rest = new NativeUint8Array(bufferSlice(buffer, offset + length - hold, offset + length));
        length -= hold;
      }
      const flags = (this.#fatal ? FATAL : 0) | (this.#keepBom || this.#started ? KEEP_BOM : 0);
      this.#started = stream && (this.#started || length > 0);
      return this.#pieces(buffer, offset, length, flags);
    }
    // The host takes a limited number of bytes at once.
    #pieces(buffer, offset, length, flags) {
      const whole = multibyte[this.#encoding] === true;
      if (whole && length > 4 * PIECE) throw new NativeRangeError(`too many bytes of ${this.#encoding} at once`);
      let text = '';
      for (;;) {
        let size = length;
        if (!whole && length > PIECE) size = PIECE - unfinished(this.#encoding, new NativeUint8Array(buffer, offset, PIECE));
        const piece = native.decode(buffer, offset, size, this.#encoding, flags);
        if (piece === undefined) {
          this.#rest = null;
          this.#started = false;
          throw new NativeTypeError(`the bytes are not valid ${this.#encoding}`);
        }
        text += piece;
        offset += size;
        length -= size;
        flags |= KEEP_BOM;
        if (length === 0) return text;
      }
    }
    get [Symbol.toStringTag]() { return 'TextDecoder'; }
  }
  define('TextEncoder', TextEncoder);
  define('TextDecoder', TextDecoder);

  // === URL ===

  // Numbers of the parts, in the order of the host's answer; `origin` can't be set.
  const PARTS = ['href', 'protocol', 'username', 'password', 'host', 'hostname', 'port', 'pathname', 'search', 'hash', 'origin'];
  const PARSE = 100, QUERY_PARSE = 101, QUERY_WRITE = 102;
  const usv = (value) => wellFormed(`${value}`);
  const parts = (answer) => (answer === undefined ? undefined : split(answer, '\n'));

  let attach; // gives a URLSearchParams its URL
  let pairsOf; // the list of a URLSearchParams
  class URLSearchParams {
    #pairs = []; #changed = null;
    static {
      attach = (params, changed) => { params.#changed = changed; };
      pairsOf = (params, query) => {
        if (query !== undefined) params.#pairs = readQuery(query);
        return params.#pairs;
      };
    }
    constructor(init = '') {
      if (typeof init === 'object' || typeof init === 'function') {
        if (init === null) {
          this.#pairs = readQuery('null');
        } else if (typeof init[Symbol.iterator] === 'function') {
          for (const pair of init) {
            const both = [...pair];
            if (both.length !== 2) throw new NativeTypeError('each query pair must have a name and a value');
            this.#pairs[this.#pairs.length] = [usv(both[0]), usv(both[1])];
          }
        } else {
          for (const key of ownKeys(init)) {
            if (getOwnPropertyDescriptor(init, key)?.enumerable) this.#pairs[this.#pairs.length] = [usv(key), usv(init[key])];
          }
        }
      } else {
        const text = usv(init);
        this.#pairs = readQuery(text[0] === '?' ? slice(text, 1) : text);
      }
    }
    #update() { if (this.#changed !== null) this.#changed(this.toString()); }
    get size() { return this.#pairs.length; }
    append(name, value) {
      this.#pairs[this.#pairs.length] = [usv(name), usv(value)];
      this.#update();
    }
    delete(name, value) {
      const wanted = usv(name), only = value === undefined ? undefined : usv(value);
      this.#pairs = this.#pairs.filter((pair) => pair[0] !== wanted || (only !== undefined && pair[1] !== only));
      this.#update();
    }
    get(name) {
      const wanted = usv(name);
      for (const pair of this.#pairs) if (pair[0] === wanted) return pair[1];
      return null;
    }
    getAll(name) {
      const wanted = usv(name);
      return this.#pairs.filter((pair) => pair[0] === wanted).map((pair) => pair[1]);
    }
    has(name, value) {
      const wanted = usv(name), only = value === undefined ? undefined : usv(value);
      return this.#pairs.some((pair) => pair[0] === wanted && (only === undefined || pair[1] === only));
    }
    set(name, value) {
      const wanted = usv(name), to = usv(value);
      let found = false;
      this.#pairs = this.#pairs.filter((pair) => {
        if (pair[0] !== wanted) return true;
        if (found) return false;
        found = true;
        pair[1] = to;
        return true;
      });
      if (!found) this.#pairs[this.#pairs.length] = [wanted, to];
      this.#update();
    }
    sort() {
      this.#pairs.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
      this.#update();
    }
    forEach(callback, self) {
      if (typeof callback !== 'function') throw new NativeTypeError('the callback must be a function');
      for (let i = 0; i < this.#pairs.length; i++) apply(callback, self, [this.#pairs[i][1], this.#pairs[i][0], this]);
    }
    *entries() { for (let i = 0; i < this.#pairs.length; i++) yield [this.#pairs[i][0], this.#pairs[i][1]]; }
    *keys() { for (let i = 0; i < this.#pairs.length; i++) yield this.#pairs[i][0]; }
    *values() { for (let i = 0; i < this.#pairs.length; i++) yield this.#pairs[i][1]; }
    toString() {
      if (this.#pairs.length === 0) return '';
      const text = native.url(QUERY_WRITE, stringify(this.#pairs), undefined);
      if (text === undefined) throw new NativeRangeError('the query is too long');
      return text;
    }
    get [Symbol.toStringTag]() { return 'URLSearchParams'; }
  }
  defineProperty(URLSearchParams.prototype, Symbol.iterator, { value: URLSearchParams.prototype.entries, writable: true, configurable: true });
  function readQuery(text) {
    if (text === '') return [];
    const answer = native.url(QUERY_PARSE, text, undefined);
    if (answer === undefined) throw new NativeRangeError('the query is too long');
    return parse(answer);
  }

  class URL {
    #parts; #params = null;
    constructor(url, base) {
      const text = usv(url);
      const found = parts(native.url(PARSE, text, base === undefined ? undefined : usv(base)));
      if (found === undefined) {
        const error = new NativeTypeError('Invalid URL');
        error.code = 'ERR_INVALID_URL';
        error.input = text;
        throw error;
      }
      this.#parts = found;
    }
    static canParse(url, base) {
      return native.url(PARSE, usv(url), base === undefined ? undefined : usv(base)) !== undefined;
    }
    static parse(url, base) {
      try { return new URL(url, base); } catch { return null; }
    }
    #get(part) { return this.#parts[part]; }
    #set(part, value, fromParams) {
      const found = parts(native.url(part, this.#parts[0], usv(value)));
      if (found === undefined) {
        if (part === 0) throw new NativeTypeError('Invalid URL');
        return;
      }
      this.#parts = found;
      if (this.#params !== null && !fromParams && (part === 0 || part === 8)) pairsOf(this.#params, slice(found[8], 1));
    }
    static {
      for (let part = 0; part < PARTS.length; part++) {
        const accessors = { get() { return this.#get(part); }, enumerable: true, configurable: true };
        if (part < 10) accessors.set = function (value) { this.#set(part, value, false); };
        defineProperty(this.prototype, PARTS[part], accessors);
      }
    }
    get searchParams() {
      if (this.#params === null) {
        this.#params = new URLSearchParams(this.#parts[8]);
        attach(this.#params, (query) => this.#set(8, query, true));
      }
      return this.#params;
    }
    toString() { return this.#parts[0]; }
    toJSON() { return this.#parts[0]; }
    get [Symbol.toStringTag]() { return 'URL'; }
  }
  define('URL', URL);
  define('URLSearchParams', URLSearchParams);

  // === crypto and performance ===

  const hex = [];
  for (let i = 0; i < 256; i++) hex[i] = (i < 16 ? '0' : '') + i.toString(16);
  class Crypto {
    getRandomValues(array) {
      if (typeof array !== 'object' || array === null || kind(array) !== 'typed' || indexOf(typedTag(array), 'Int') < 0 && indexOf(typedTag(array), 'int') < 0) {
        throw new NativeDOMException('expected a typed array of integers', 'TypeMismatchError');
      }
      if (typedBytes(array) > 65536) {
        throw new NativeDOMException('at most 65536 random bytes can be asked for at once', 'QuotaExceededError');
      }
      native.random(typedBuffer(array), typedOffset(array), typedBytes(array));
      return array;
    }
    randomUUID() {
      const bytes = new NativeUint8Array(16);
      native.random(typedBuffer(bytes), 0, 16);
      bytes[6] = (bytes[6] & 0x0f) | 0x40;
      bytes[8] = (bytes[8] & 0x3f) | 0x80;
      let text = '';
      for (let i = 0; i < 16; i++) text += (i === 4 || i === 6 || i === 8 || i === 10 ? '-' : '') + hex[bytes[i]];
      return text;
    }
    get [Symbol.toStringTag]() { return 'Crypto'; }
  }
  define('crypto', new Crypto());
  class Performance {
    now() { return native.elapsed(); }
    get timeOrigin() { return native.origin(); }
    toJSON() { return { timeOrigin: native.origin() }; }
    get [Symbol.toStringTag]() { return 'Performance'; }
  }
  define('performance', new Performance());

  // What is thrown, for the host.
  return (value, heading) => {
    const text = heading + (typeof value === 'string' ? value : inspect(value));
    return text.length > LINE ? slice(text, 0, LINE) : text;
  };
})
