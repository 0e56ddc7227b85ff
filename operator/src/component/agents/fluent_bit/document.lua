-- Makes documents of the log store from records: of Docker's JSON files, of the host's own log, and of requests to the HTTP
-- input. Whatever comes in, what goes out has only fields that the store knows, each with a value that it takes: a document
-- that is refused would hold up all those that are sent with it. What cannot be a field is found in `message`.
-- Loaded after a table `OWN` with what is the same for all documents of a host.

local byte, find, format, gsub, lower = string.byte, string.find, string.format, string.gsub, string.lower
local gmatch, match, sub, upper = string.gmatch, string.match, string.sub, string.upper
local concat, floor, tonumber = table.concat, math.floor, tonumber

-- Longest texts, in bytes: of a message, of a value beside it, and of that one's name.
local MESSAGE, VALUE, NAME = 1048576, 4096, 256
-- Most values beside the known fields, and how deep they are looked for.
local VALUES, DEPTH = 200, 8
-- In the place of bytes that are no text.
local REPLACED = "\239\191\189"

-- Whether there is nothing in a text but ASCII without control characters. A loop is compiled; a pattern is not.
local function is_plain(bytes)
  for place = 1, #bytes do
    local one = byte(bytes, place)
    if one > 126 or (one < 32 and one ~= 9 and one ~= 10 and one ~= 13) then
      return false
    end
  end
  return true
end

-- A text without bytes that are no UTF-8, and without colours and control characters but for tabs and line breaks.
local function text_of(bytes)
  if is_plain(bytes) then
    return bytes
  end
  if find(bytes, "\27[", 1, true) then
    bytes = gsub(bytes, "\27%[[%d;]*m", "")
  end
  if find(bytes, "[%z\1-\8\11\12\14-\31\127]") then
    bytes = gsub(bytes, "[%z\1-\8\11\12\14-\31\127]", REPLACED)
  end
  if not find(bytes, "[\128-\255]") then
    return bytes
  end
  local parts, count, at, first, size = {}, 0, 1, 1, #bytes
  while at <= size do
    local one = byte(bytes, at)
    local more = 0
    if one >= 240 and one <= 244 then
      more = 3
    elseif one >= 224 and one < 240 then
      more = 2
    elseif one >= 194 and one < 224 then
      more = 1
    elseif one >= 128 then
      more = -1
    end
    if more > 0 then
      local two = byte(bytes, at + 1) or 0
      -- Neither longer than it needs to be, nor half of a pair, nor beyond the last character.
      local least = (one == 224 and 160) or (one == 240 and 144) or 128
      local most = (one == 237 and 159) or (one == 244 and 143) or 191
      if two < least or two > most then
        more = -1
      end
      for place = at + 2, at + more do
        local next = byte(bytes, place) or 0
        if next < 128 or next > 191 then
          more = -1
          break
        end
      end
    end
    if more < 0 then
      count = count + 1
      parts[count] = sub(bytes, first, at - 1)
      count = count + 1
      parts[count] = REPLACED
      at = at + 1
      first = at
    else
      at = at + more + 1
    end
  end
  parts[count + 1] = sub(bytes, first)
  return concat(parts)
end

-- The beginning of a text, of so many bytes at most, without half a character at its end.
local function cut(text, most)
  if #text <= most then
    return text
  end
  while most > 0 and byte(text, most + 1) >= 128 and byte(text, most + 1) < 192 do
    most = most - 1
  end
  return sub(text, 1, most)
end

local ESCAPED = { b = REPLACED, f = "\n", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

-- A character by its number, as UTF-8; what is none, half of a pair, or a control character is replaced.
local function character(number)
  local is_control = (number < 32 and number ~= 9 and number ~= 10 and number ~= 13) or number == 127
  if is_control or (number >= 55296 and number < 57344) then
    return REPLACED
  elseif number < 128 then
    return string.char(number)
  elseif number < 2048 then
    return string.char(192 + floor(number / 64), 128 + number % 64)
  elseif number < 65536 then
    return string.char(224 + floor(number / 4096), 128 + floor(number / 64) % 64, 128 + number % 64)
  end
  return string.char(
    240 + floor(number / 262144), 128 + floor(number / 4096) % 64, 128 + floor(number / 64) % 64, 128 + number % 64)
end

-- A JSON string without its quotes, with its escapes as what they mean; nothing where one of them means nothing.
local function unescaped(text)
  if not find(text, "\\", 1, true) then
    return text
  end
  local is_wrong, high, high_ends = false, nil, nil
  local plain = gsub(text, "()\\(.)(%x?%x?%x?%x?)()", function(at, letter, digits, ends)
    if letter == "u" then
      if #digits < 4 then
        is_wrong = true
        return ""
      end
      local number = tonumber(digits, 16)
      if number >= 56320 and number < 57344 and high and at == high_ends then
        return character(65536 + (high - 55296) * 1024 + number - 56320)
      elseif number >= 55296 and number < 56320 and find(text, "^\\u[dD][c-fC-F]%x%x", ends) then
        high, high_ends = number, ends
        return ""
      end
      return character(number)
    end
    if not ESCAPED[letter] then
      is_wrong = true
      return ""
    end
    return ESCAPED[letter] .. digits
  end)
  if is_wrong then
    return nil
  end
  return plain
end

-- Where a JSON string ends that begins at a place: that of its closing quote.
local function end_of_string(text, at)
  local place, size = at + 1, #text
  while place <= size do
    local one = byte(text, place)
    if one == 34 then
      return place
    end
    place = place + (one == 92 and 2 or 1)
  end
  return nil
end

-- Keeps a value under its name, with those of that name before it, as in a list.
local function keep(values, name, value)
  if not name or value == "" then
    return
  end
  values.count = values.count + 1
  if values.count > VALUES then
    values.is_cut = true
    return
  end
  local known = values.of[name]
  if known then
    value = known .. " " .. value
  else
    values.names[#values.names + 1] = name
  end
  values.of[name] = value
end

-- A place for values.
local function no_values()
  return { of = {}, names = {}, count = 0 }
end

-- For what has no place of its own, because it is too deep.
local NOWHERE = no_values()
NOWHERE.count = VALUES

local read_value

-- Reads what is between the brackets of an object or a list; tells where that ends.
local function read_inside(text, at, path, depth, values, is_object)
  local closing = is_object and 125 or 93
  local place = find(text, "[^ \t\r\n]", at + 1)
  if not place then
    return nil
  elseif byte(text, place) == closing then
    return place
  end
  while true do
    local name = path
    if is_object then
      if byte(text, place) ~= 34 then
        return nil
      end
      local ends = end_of_string(text, place)
      if not ends then
        return nil
      end
      name = unescaped(sub(text, place + 1, ends - 1))
      if not name then
        return nil
      end
      if path and values.count < VALUES then
        name = #path > NAME and path or path .. "." .. name
      end
      place = find(text, "[^ \t\r\n]", ends + 1)
      if not place or byte(text, place) ~= 58 then
        return nil
      end
      place = find(text, "[^ \t\r\n]", place + 1)
    end
    if not place then
      return nil
    end
    local ends = read_value(text, place, name, depth + 1, values)
    place = ends and find(text, "[^ \t\r\n]", ends + 1)
    if not place then
      return nil
    end
    local after = byte(text, place)
    if after == closing then
      return place
    elseif after ~= 44 then
      return nil
    end
    place = find(text, "[^ \t\r\n]", place + 1)
    if not place then
      return nil
    end
  end
end

-- Reads a JSON value at a place, and keeps what is in it; tells where it ends, or nothing where it is none.
read_value = function(text, at, path, depth, values)
  local first = byte(text, at)
  if first == 34 then
    local ends = end_of_string(text, at)
    local value = ends and unescaped(sub(text, at + 1, ends - 1))
    if not value then
      return nil
    end
    keep(values, path, value)
    return ends
  elseif first == 123 or first == 91 then
    if depth >= 64 then
      return nil
    end
    local is_kept = depth < DEPTH
    local ends = read_inside(text, at, is_kept and path or nil, depth, is_kept and values or NOWHERE, first == 123)
    if ends and not is_kept then
      values.is_cut = true
      keep(values, path, sub(text, at, ends))
    end
    return ends
  end
  local word = match(text, "^[%w%.%+%-]+", at)
  if not word then
    return nil
  elseif word == "null" then
    return at + 3
  elseif word ~= "true" and word ~= "false" and not (find(word, "^%-?%d") and tonumber(word)) then
    return nil
  end
  keep(values, path, word)
  return at + #word - 1
end

-- The values in a text that is a JSON object, by the path to each; nothing where it is none.
local function values_of_json(text)
  local begins = find(text, "[^ \t\r\n]")
  if not begins or byte(text, begins) ~= 123 then
    return nil
  end
  local values = no_values()
  local ends = read_inside(text, begins, nil, 0, values, true)
  if not ends or find(text, "[^ \t\r\n]", ends + 1) then
    return nil
  end
  return values
end

-- The values in a text of pairs such as `level=info msg="two words"`; nothing where it is none.
local function values_of_pairs(text)
  if not find(text, "^[%a_][%w_%.]*=") then
    return nil
  end
  local values, at = no_values(), 1
  while at <= #text do
    local name, place = match(text, "^([%a_][%w_%.]*)=()", at)
    if not name then
      return nil
    end
    local value
    if byte(text, place) == 34 then
      local ends = end_of_string(text, place)
      if not ends then
        return nil
      end
      value, at = unescaped(sub(text, place + 1, ends - 1)), ends + 1
      if not value then
        return nil
      end
    else
      value, at = match(text, "^([^ ]*)()", place)
    end
    keep(values, name, value)
    at = match(text, "^ *()", at)
  end
  return values.count > 1 and values or nil
end

local LEVELS = {
  trace = "trace", debug = "debug", info = "info", information = "info", notice = "info", log = "info",
  warn = "warn", warning = "warn", err = "error", error = "error", severe = "error",
  fatal = "fatal", critical = "fatal", crit = "fatal", alert = "fatal", emerg = "fatal", panic = "fatal",
  i = "info", w = "warn", e = "error", f = "fatal",
}

local function level(value)
  return LEVELS[lower(value)]
end

-- A word, such as an ID.
local function word(value)
  return #value <= 256 and value or nil
end

-- What a program calls a part of itself.
local function logger(value)
  return match(value, "^[%w_:%.%$%-]+$") and word(value)
end

local function path_of(value)
  return match(value, "^/[^?#]*") and cut(match(value, "^/[^?#]*"), 1024) or nil
end

local function status(value)
  local number = tonumber(value)
  return number and number >= 100 and number <= 999 and number == floor(number) and number or nil
end

-- A duration in units of so many nanoseconds, in nanoseconds.
local function nanoseconds(unit)
  return function(value)
    local number = tonumber(value)
    -- A hundred years, which a number of the store holds.
    -- No comparison holds for what is no number, which has a name in some programs' lines.
    if not number or not (number >= 0 and number * unit <= 3e18) then
      return nil
    end
    return floor(number * unit + 0.5)
  end
end

-- A trace, from the header that carries it.
local function trace(value)
  return match(value, "^%x%x%-(%x+)%-%x+%-%x%x$")
end

-- Fields by the names that programs have for them: the field, and what makes its value.
local KNOWN = {
  level = { "log.level", level }, lvl = { "log.level", level }, severity = { "log.level", level },
  ["log.level"] = { "log.level", level },
  logger = { "log.logger", logger }, target = { "log.logger", logger }, ["log.logger"] = { "log.logger", logger },
  trace_id = { "trace.id", word }, traceId = { "trace.id", word }, traceID = { "trace.id", word },
  ["trace.id"] = { "trace.id", word },
  ["request.headers.Traceparent"] = { "trace.id", trace },
  request_id = { "http.request.id", word }, requestId = { "http.request.id", word },
  ["fields.request_id"] = { "http.request.id", word }, ["http.request.id"] = { "http.request.id", word },
  ["resp_headers.X-Request-Id"] = { "http.request.id", word },
  method = { "http.request.method", word }, ["fields.method"] = { "http.request.method", word },
  ["request.method"] = { "http.request.method", word },
  ["http.request.method"] = { "http.request.method", word },
  status = { "http.response.status_code", status }, ["fields.status"] = { "http.response.status_code", status },
  status_code = { "http.response.status_code", status },
  ["http.response.status_code"] = { "http.response.status_code", status },
  path = { "url.path", path_of }, uri = { "url.path", path_of }, ["fields.path"] = { "url.path", path_of },
  ["request.uri"] = { "url.path", path_of }, ["url.path"] = { "url.path", path_of },
  latency_ms = { "event.duration", nanoseconds(1e6) }, ["fields.latency_ms"] = { "event.duration", nanoseconds(1e6) },
  duration_ms = { "event.duration", nanoseconds(1e6) }, duration = { "event.duration", nanoseconds(1e9) },
  ["event.duration"] = { "event.duration", nanoseconds(1) },
  user_id = { "user.id", word }, ["fields.user_id"] = { "user.id", word }, ["user.id"] = { "user.id", word },
}

-- Names of what a line says, the first that is there.
local MESSAGES = { "message", "msg", "fields.message" }
-- What says again what the document has anyway, where it looks like this.
local TIME = "^[%d%-:T%.Z%+, ]+$"
local SAID = { timestamp = TIME, time = TIME, ts = TIME, t = TIME, ["@timestamp"] = TIME, ["ecs.version"] = "^[%d%.]+$" }

-- A text without what is to be masked.
local function masked(text)
  for _, mask in ipairs(OWN.masks) do
    if find(text, mask[1], 1, true) then
      text = gsub(text, mask[2], mask[3])
    end
  end
  return text
end

-- Puts values into a document: into the fields that are known, and the others beside them.
local function put_values(document, values, original)
  local message
  for _, name in ipairs(MESSAGES) do
    if values.of[name] then
      message = name
      break
    end
  end
  local others, is_cut = nil, values.is_cut
  for _, name in ipairs(values.names) do
    local value, known = masked(values.of[name]), KNOWN[name]
    local made = known and not document[known[1]] and known[2](value)
    if made then
      document[known[1]] = made
    end
    -- Of a path, what stands behind it is kept, too.
    local is_whole = made and (known[2] ~= path_of or made == value)
    if not is_whole and name ~= message and not (SAID[name] and find(value, SAID[name])) then
      if #name > NAME or #value > VALUE then
        name, value, is_cut = cut(name, NAME), cut(value, VALUE), true
      end
      others = others or {}
      others[name] = value
    end
  end
  document.fields = others
  -- Everything is found as text: where something of it has no field, as it was written.
  document.message = message and not is_cut and masked(values.of[message]) or masked(original)
end

-- The level that stands at the beginning of a line of text, behind a time or a name: in capital letters, or in brackets.
local function level_of(text)
  local letter = match(text, "^([IWEF])%d%d%d%d %d%d:")
  if letter then
    return LEVELS[lower(letter)]
  end
  local count = 0
  for before, found, after in gmatch(sub(text, 1, 80), "(.?)%f[%a](%a+)%f[%A](.?)") do
    local is_marked = found == upper(found) or (before == "[" and after == "]") or after == ":"
    if #found > 2 and is_marked and LEVELS[lower(found)] then
      return LEVELS[lower(found)]
    end
    count = count + 1
    if count == 6 then
      return nil
    end
  end
  return nil
end

-- A number that the same text has always, and another text hardly ever.
local function digest(text)
  local low, high = 5381, 52711
  for place = 1, #text do
    local one = byte(text, place)
    low = (low * 33 + one) % 4294967296
    high = (high * 31 + one) % 4294967296
  end
  return format("%08x%08x", low, high)
end

-- Whether a line of a service is not kept.
local function is_dropped(text, service)
  for _, drop in ipairs(OWN.drops) do
    if (not drop[3] or drop[3] == service) and find(text, drop[1], 1, true) and find(text, drop[2]) then
      return true
    end
  end
  return false
end

-- A document with a text in it, of a service at a moment.
local function document(text, service, component)
  text = text_of(text)
  local made = {
    ["service.name"] = service,
    ["service.environment"] = OWN.environment,
    ["host.name"] = OWN.host,
    stack = OWN.stack,
    component = component,
    index = "tasktracker-logs-" .. gsub(lower(service), "[^%w_%-%.]", "-") .. "-" .. OWN.environment,
  }
  text = cut(text, MESSAGE)
  local values = values_of_json(text) or values_of_pairs(text)
  if values then
    put_values(made, values, text)
  else
    made.message = masked(text)
    made["log.level"] = level_of(text)
  end
  return made
end

-- A line without the breaks at its end. A pattern would look from each of many to the end.
local function without_end(line)
  local size = #line
  while size > 0 and (byte(line, size) == 10 or byte(line, size) == 13) do
    size = size - 1
  end
  return sub(line, 1, size)
end

-- What a trace begins with, and whether a line goes on with it: `seen` is how many lines it has so far.
local TRACES = {
  {
    begins = function(line)
      return find(line, "^panic: ") or find(line, "^fatal error: ")
    end,
    goes_on = function(line)
      return line == "" or find(line, "^[\t ]") or find(line, "^goroutine %d+") or find(line, "^%[signal ")
        or find(line, "^[%w_%.%-/%*%(%){}]+%(.*%)$") or find(line, "^created by ") or find(line, "^exit status %d+$")
    end,
  },
  {
    begins = function(line)
      return find(line, "^Exception in thread ")
        or find(line, "^[%w_%.%$]+Exception$") or find(line, "^[%w_%.%$]+Exception: ")
        or find(line, "^[%w_%.%$]+Error$") or find(line, "^[%w_%.%$]+Error: ")
    end,
    goes_on = function(line)
      return find(line, "^%s+at ") or find(line, "^%s+%.%.%. ") or find(line, "^%s*Caused by: ")
        or find(line, "^%s*Suppressed: ")
    end,
  },
  {
    begins = function(line)
      return line == "Traceback (most recent call last):"
    end,
    goes_on = function(line, trace)
      if find(line, "^[\t ]") then
        return true
      elseif line == "Traceback (most recent call last):" then
        trace.is_told = false
        return true
      elseif not trace.is_told then
        trace.is_told = true
        return find(line, "^[%w_%.]+")
      end
      return line == "" or find(line, "^During handling of ") or find(line, "^The above exception ")
    end,
  },
  {
    begins = function(line)
      return find(line, "^thread '.*' .*panicked at ")
    end,
    goes_on = function(line, trace)
      return #trace.lines == 1 and byte(line, 1) ~= 123 or find(line, "^note: ") or find(line, "^stack backtrace:") or find(line, "^%s+")
    end,
  },
}

-- By container and stream: traces whose end has not come, and lines of which Docker has written only pieces. And documents
-- that are finished.
local traces, partials, finished = {}, {}, { first = 1, last = 0 }
-- Most lines and bytes of a trace, and after how many ticks without another line it is over.
local LINES, BYTES, TICKS = 1000, 262144, 5
-- The same of pieces: the rest may be waiting while others are read.
local PIECE_TICKS = 50

-- The kind of trace that begins with a line.
local function beginning(line)
  for _, kind in ipairs(TRACES) do
    if kind.begins(line) then
      return kind
    end
  end
  return nil
end

-- Has a document wait until it is its turn.
local function queue(made, at)
  finished.last = finished.last + 1
  finished[finished.last] = { made, at }
end

-- The document that waits the longest.
local function next_finished()
  local one = finished[finished.first]
  if not one then
    return nil
  end
  finished[finished.first] = nil
  finished.first = finished.first + 1
  return one[1], one[2]
end

-- A document of a line of a container, or of a trace.
local function document_of(source, at, text)
  local made = document(text, source.service, source.component)
  made["container.name"], made.stream = source.container, source.stream
  made.id = format("%d.%09d-", at.sec, at.nsec) .. digest(OWN.host .. source.key .. text)
  return made
end

-- A trace is over.
local function finish(key)
  local trace = traces[key]
  traces[key] = nil
  local last = #trace.lines
  -- Empty lines at the end are none of it.
  while trace.lines[last] == "" do
    last = last - 1
  end
  local made = document_of(trace.source, trace.at, concat(trace.lines, "\n", 1, last))
  made["log.level"] = made["log.level"] or "error"
  queue(made, trace.at)
end

-- The document of a line; none where it belongs to a trace, or is not kept.
local function take(source, at, line)
  local trace = traces[source.key]
  if trace then
    if trace.kind.goes_on(line, trace) and #trace.lines < LINES and trace.bytes < BYTES then
      trace.lines[#trace.lines + 1] = line
      trace.bytes, trace.idle = trace.bytes + #line, 0
      return nil
    end
    finish(source.key)
  end
  if line == "" or is_dropped(line, source.service) then
    return nil
  end
  local kind = beginning(line)
  if kind then
    traces[source.key] = { kind = kind, lines = { line }, bytes = #line, idle = 0, source = source, at = at }
    return nil
  end
  return document_of(source, at, line)
end

-- The pieces of a line are all there.
local function take_pieces(key)
  local partial = partials[key]
  partials[key] = nil
  return take(partial.source, partial.at, without_end(concat(partial.pieces))), partial.at
end

-- A fifth of a second has passed.
local function tick()
  for key, partial in pairs(partials) do
    partial.idle = partial.idle + 1
    if partial.idle > PIECE_TICKS then
      local made, at = take_pieces(key)
      if made then
        queue(made, at)
      end
    end
  end
  for key, trace in pairs(traces) do
    trace.idle = trace.idle + 1
    if trace.idle > TICKS then
      finish(key)
    end
  end
  return next_finished()
end

-- A line of a container: of this stack, and not of whoever reads it. What is returned may be a document of another line.
local function line_of(timestamp, record)
  if record.tick then
    return tick()
  end
  local labels, text = record.attrs, record.log
  if type(labels) ~= "table" or labels["tasktracker.dev/stack"] ~= OWN.stack or type(text) ~= "string" then
    return nil
  end
  local service = labels["com.docker.compose.service"] or "unknown"
  if service == OWN.reader then
    return nil
  end
  local source = {
    key = (labels.tag or "") .. (record.stream or ""),
    service = service,
    component = labels["tasktracker.dev/component"],
    container = labels.tag,
    stream = record.stream,
  }
  local partial, is_end, at = partials[source.key], byte(text, #text) == 10, timestamp
  local made
  if partial or not is_end then
    partial = partial or { pieces = {}, size = 0, source = source, at = timestamp }
    partials[source.key] = partial
    partial.idle = 0
    if partial.size <= MESSAGE then
      partial.pieces[#partial.pieces + 1] = text
      partial.size = partial.size + #text
    end
    if is_end then
      made, at = take_pieces(source.key)
    end
  else
    made = take(source, timestamp, without_end(text))
  end
  if made and finished[finished.first] then
    queue(made, at)
    made = nil
  end
  if made then
    return made, at
  end
  return next_finished()
end

-- A moment such as `2026-01-31T12:00:00.5+01:00`, as Fluent Bit has it; nothing where it is none.
local function moment(text)
  local year, month, day, hour, minute, second, rest =
    match(text, "^(%d%d%d%d)%-(%d%d)%-(%d%d)[T ](%d%d):(%d%d):(%d%d)(.*)$")
  if not year then
    return nil
  end
  local fraction, zone = match(rest, "^%.(%d+)(.*)$")
  local sign, hours, minutes = match(zone or rest, "^([%+%-])(%d%d):?(%d%d)$")
  if not sign and (zone or rest) ~= "Z" then
    return nil
  end
  -- Days since 1970: years begin in March here, so that the day that some have more is their last one.
  local years = tonumber(year) - (tonumber(month) < 3 and 1 or 0)
  local months = (tonumber(month) + 9) % 12
  local days = 365 * years + floor(years / 4) - floor(years / 100) + floor(years / 400)
    + floor((153 * months + 2) / 5) + tonumber(day) - 719469
  local seconds = days * 86400 + tonumber(hour) * 3600 + tonumber(minute) * 60 + tonumber(second)
  if sign then
    seconds = seconds - (sign == "+" and 1 or -1) * (tonumber(hours) * 3600 + tonumber(minutes) * 60)
  end
  return { sec = seconds, nsec = fraction and tonumber(sub(fraction .. "00000000", 1, 9)) or 0 }
end

-- A line of the host's own log, in a file of a syslog server.
local function line_of_host(timestamp, record)
  local line = without_end(record.log)
  if line == "" or is_dropped(line, "host") then
    return nil
  end
  local time, rest = match(line, "^(%d%d%d%d%-%d%d%-%d%dT%S+) %S+ (.*)$")
  if not time then
    rest = match(line, "^%a%a%a [ %d]%d %d%d:%d%d:%d%d %S+ (.*)$")
  end
  local program, text = match(rest or "", "^([%w%._/%-]+)%[?%d*%]?: (.*)$")
  local made = document(text or rest or line, "host")
  made["log.logger"] = made["log.logger"] or program
  local at = time and moment(time) or timestamp
  made.id = format("%d.%09d-", at.sec, at.nsec) .. digest(OWN.host .. line)
  return made, at
end

-- Levels by the numbers that syslog has for them.
local PRIORITIES = { "fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug" }

-- An entry of the host's journal.
local function entry_of_journal(timestamp, record)
  local text = record.MESSAGE
  if type(text) ~= "string" or without_end(text) == "" or is_dropped(text, "host") then
    return nil
  end
  local made = document(without_end(text), "host")
  made["log.level"] = made["log.level"] or PRIORITIES[(tonumber(record.PRIORITY) or 6) + 1]
  local program = record.SYSLOG_IDENTIFIER or record.SYSTEMD_UNIT or record.COMM
  made["log.logger"] = made["log.logger"] or type(program) == "string" and cut(text_of(program), 256) or nil
  made.id = format("%d.%09d-", timestamp.sec, timestamp.nsec)
    .. digest(OWN.host .. tostring(record.PID) .. tostring(program) .. text)
  return made
end

-- Names and values as texts.
local function texts_of(values)
  local texts = {}
  for name, value in pairs(type(values) == "table" and values or {}) do
    if type(value) ~= "table" and value ~= "" then
      texts[cut(text_of(tostring(name)), NAME)] = cut(masked(text_of(tostring(value))), VALUE)
    end
  end
  return texts
end

-- A document that somebody of the stack has sent.
local function sent_document(service, message, values)
  return {
    ["service.name"] = service,
    ["service.environment"] = OWN.environment,
    stack = OWN.stack,
    message = cut(message, MESSAGE),
    fields = values,
    index = "tasktracker-logs-" .. service .. "-" .. OWN.environment,
  }
end

-- A message of Alertmanager, which is of one alert: what began, or ended, and when.
local function change_of_alert(timestamp, record)
  local alert = type(record.alerts) == "table" and record.alerts[1]
  if type(alert) ~= "table" then
    return nil
  end
  local labels, annotations = texts_of(alert.labels), texts_of(alert.annotations)
  local name, is_over = labels.alertname or "unknown", alert.status == "resolved"
  local values = { status = is_over and "resolved" or "firing", url = texts_of(alert).generatorURL }
  for key, value in pairs(labels) do
    values["labels." .. key] = value
  end
  for key, value in pairs(annotations) do
    values["annotations." .. key] = value
  end
  local summary = annotations.summary and ": " .. annotations.summary or ""
  local made = sent_document("alerts", values.status .. ": " .. name .. summary, values)
  made["log.level"] = not is_over and level(labels.severity or "") or "info"
  made["host.name"] = labels.host
  -- That it still is as it was is told again and again, of the same moment.
  local since = cut(text_of(tostring(is_over and alert.endsAt or alert.startsAt)), 64)
  local at = moment(since) or timestamp
  made.id = cut(text_of(tostring(alert.fingerprint)), 64) .. "-" .. values.status .. "-" .. since
  return made, at
end

-- A line of the operator's audit log.
local function entry_of_audit(timestamp, record)
  local done = {}
  for place, what in ipairs(type(record.what) == "table" and record.what or {}) do
    done[place] = tostring(what)
  end
  local what = masked(text_of(concat(done, ", ")))
  local values = texts_of(record)
  local made = sent_document("operator", what .. ": " .. tostring(values.result), values)
  made["log.level"] = (values.result == "Succeeded" or values.result == "Began") and "info" or "error"
  made["host.name"], made.component = values.host, values.component
  local duration = nanoseconds(1e9)(values.seconds or "")
  made["event.duration"] = duration ~= 0 and duration or nil
  local at = moment(values.when or "") or timestamp
  made.id = format("%d.%09d-", at.sec, at.nsec) .. digest(concat({
    values.stack or "", values.host or "", values.component or "", values.plan or "", values.result or "",
  }, " "))
  -- What came out is told when it is over.
  return made, duration and { sec = at.sec + floor(duration / 1e9), nsec = at.nsec } or at
end

-- What is called for each record: a mistake in here must not cost a line, nor those that came with it.
local function safely(make)
  return function(tag, timestamp, record)
    local is_made, made, at = pcall(make, timestamp, record)
    if not is_made then
      -- What could not be masked is not sent.
      made, at = { message = "no document could be made of this", fields = { mistake = cut(text_of(tostring(made)), VALUE) } }, nil
    end
    if not made then
      return -1, timestamp, record
    end
    return at and 1 or 2, at or timestamp, made
  end
end

container, syslog, journal = safely(line_of), safely(line_of_host), safely(entry_of_journal)
alerts, audit = safely(change_of_alert), safely(entry_of_audit)
