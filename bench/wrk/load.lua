-- One kind of request, its answer checked each time.
--
-- Arguments: METHOD PATH STATUS EXPECTED NUMBER BODY HEADER... -- ID...
-- BODY is a file. In it and in the path @ID@ is one of the IDs, in turn, and @NUMBER16DIGITS@ a
-- number that no other request has, as long as that placeholder. EXPECTED is a piece of every
-- right answer's body. X-Forwarded-For has another address in each request.
--
-- Each thread sends to the next of the ports in the environment's PORTS.

local threads, ports = {}, {}
for port in (os.getenv("PORTS") or ""):gmatch("%d+") do ports[#ports + 1] = port end

function setup(thread)
   thread:set("index", #threads)
   if #ports > 0 then
      thread.addr = wrk.lookup("127.0.0.1", ports[#threads % #ports + 1])[1]
   end
   threads[#threads + 1] = thread
end

-- The text before each placeholder and the placeholder itself, alternating.
local function pieces(template)
   local found, at = {}, 1
   while true do
      local from, to = template:find("@[A-Z0-9]+@", at)
      if not from then break end
      found[#found + 1] = template:sub(at, from - 1)
      found[#found + 1] = template:sub(from, to)
      at = to + 1
   end
   found[#found + 1] = template:sub(at)
   return found
end

function init(args)
   method, path = args[1], pieces(args[2])
   status, expected = tonumber(args[3]), args[4]
   -- Threads count in ranges of their own.
   number = tonumber(args[5]) + index * 1e9
   local body_file = args[6]
   ids = {}
   local at = 7
   while args[at] ~= "--" do
      local name, value = args[at]:match("^([^:]+): (.*)$")
      wrk.headers[name] = value
      varies = varies or name == "X-Forwarded-For"
      at = at + 1
   end
   for id = at + 1, #args do ids[#ids + 1] = args[id] end
   if body_file ~= "" then
      local file = assert(io.open(body_file, "rb"))
      body = pieces(file:read("*a"))
      file:close()
   end
   sent, wrong, said = index, 0, ""
end

local function filled(template, id)
   if not template then return nil end
   if #template == 1 then return template[1] end
   local text = {}
   for at, piece in ipairs(template) do
      if at % 2 == 1 then
         text[at] = piece
      elseif piece == "@ID@" then
         text[at] = id
      else
         text[at] = string.format("%016.0f", number)
         number = number + 1
      end
   end
   return table.concat(text)
end

function request()
   sent = sent + 1
   if varies then
      wrk.headers["X-Forwarded-For"] = string.format(
         "10.%d.%d.%d", sent / 65536 % 256, sent / 256 % 256, sent % 256
      )
   end
   local id = ids[(sent - 1) % math.max(#ids, 1) + 1]
   return wrk.format(method, filled(path, id), nil, filled(body, id))
end

function response(got, _, text)
   if got ~= status or not text:find(expected, 1, true) then
      wrong = wrong + 1
      if said == "" then said = got .. " " .. text:sub(1, 200) end
   end
end

function done(summary, latency)
   local wrong, said = 0, ""
   for _, thread in ipairs(threads) do
      wrong = wrong + thread:get("wrong")
      if said == "" then said = thread:get("said") end
   end
   local errors = summary.errors
   print(string.format(
      "RESULT %d %.0f %.0f %.0f %d %d %s",
      summary.requests, latency.mean, latency:percentile(50), latency:percentile(99),
      wrong, errors.connect + errors.read + errors.write + errors.timeout,
      (said:gsub("%s+", " "))
   ))
end
