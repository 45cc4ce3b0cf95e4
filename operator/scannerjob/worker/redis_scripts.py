"""The guard's rules as scripts for Redis; `records.Store` says what each of them is to do.

Their keys are records, but for the last two scripts, which are about the tasks that workers guard.
The first argument is for how many seconds a record is kept, the others are named at the top of each
script.
"""

from __future__ import annotations

# Before each script: the server's clock, and what a record is. Times are in milliseconds. Fields
# which others keep in the same hash, such as the number of sends, are left as they are. A look
# writes, too, so that a server which may not be written to does not answer: a replica that was the
# master, or a master that has lost its replicas. (After this write, Redis lets a script write even
# where its memory is full; it is little, and the end of a task must not go unsaid.)
PRELUDE = """
local retention = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function keep(key)
  redis.call('EXPIRE', key, retention)
end

-- No more of a field than is ever written; of a key that is no record, what no record says.
local function fields(key, ...)
  local found = redis.pcall('HMGET', key, ...)
  if found.err then
    return {'unreadable', '', '', '', '', ''}
  end
  for place = 1, select('#', ...) do
    found[place] = found[place] and string.sub(found[place], 1, 1000)
  end
  return found
end

local function look(key)
  keep(key)
  local found = fields(key, 'state', 'retries', 'owner', 'until')
  local record = {state = found[1], retries = tonumber(found[2]) or 0, owner = found[3]}
  record.running = record.state == 'running'
  record.waiting = not record.state or record.state == 'queued'
  record.lapsed = record.running and (tonumber(found[4]) or 0) <= now
  return record
end

-- What an execution may write over: nothing, its own, or what was there before it began (the store
-- has lost that it did).
local function own(record, owner)
  return record.waiting or (record.running and record.owner == owner)
end

local function held(record, retries, owner)
  local begun = record.running or record.state == 'retrying'
  return own(record, owner) or (begun and record.retries < tonumber(retries))
end

local function run(key, retries, owner, lease)
  redis.call('HSET', key, 'state', 'running', 'retries', retries, 'owner', owner,
             'until', now + lease)
  redis.call('HDEL', key, 'reason', 'was')
  keep(key)
end

local function contents(key)
  return fields(key, 'state', 'retries', 'owner', 'until', 'reason', 'was')
end
"""

CLAIM = """
local key, retries, owner, lease = KEYS[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local record = look(key)
if held(record, retries, owner) then
  run(key, retries, owner, lease)
  return 1
end
return 0
"""

# The places of those that have lost theirs.
RENEW = """
local lease, lost = tonumber(ARGV[2]), {}
for place, key in ipairs(KEYS) do
  local retries, owner = ARGV[1 + 2 * place], ARGV[2 + 2 * place]
  local record = look(key)
  local given_back = record.state == 'queued' and record.owner == owner
  if held(record, retries, owner) and not given_back then
    run(key, retries, owner, lease)
  else
    lost[#lost + 1] = place
  end
end
return lost
"""

# A user who may not publish has its records changed all the same.
FINISH = """
local key, retries, owner = KEYS[1], ARGV[2], ARGV[3]
local state, reason, delay, channel, id = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local record = look(key)
if own(record, owner) or (state ~= 'queued' and held(record, retries, owner)) then
  redis.call('HSET', key, 'state', state, 'retries', retries, 'owner', owner, 'reason', reason)
  redis.call('HDEL', key, 'until', 'was')
  if delay ~= '' then
    redis.call('HSET', key, 'until', now + tonumber(delay))
  end
  keep(key)
  if state ~= 'queued' then
    redis.pcall('PUBLISH', channel, id)
  end
  return 1
end
local written = record.state == state and record.retries == tonumber(retries)
    and record.owner == owner and redis.call('HGET', key, 'reason') == reason
return written and 1 or 0
"""

REGISTER = """
local states = {}
for place, key in ipairs(KEYS) do
  redis.call('HSETNX', key, 'state', 'queued')
  keep(key)
  states[place] = redis.call('HGET', key, 'state')
end
return states
"""

READ = """
local function told(section, field)
  local info = redis.pcall('INFO', section)
  return type(info) == 'string' and string.match(info, field .. ':(%w+)') or ''
end

local run, history = told('server', 'run_id'), told('replication', 'master_replid')
local records = {}
for place, key in ipairs(KEYS) do
  keep(key)
  records[place] = contents(key)
end
return {run, history, now, records}
"""

SUPERSEDE = """
local records = {}
for place, key in ipairs(KEYS) do
  local record = look(key)
  if record.waiting or record.state == 'retrying' or record.lapsed then
    redis.call('HSET', key, 'state', 'superseded')
    redis.call('HDEL', key, 'until', 'was')
    if record.state then
      redis.call('HSET', key, 'was', record.state)
    end
  end
  keep(key)
  records[place] = contents(key)
end
return records
"""

# A sorted set of names, by when each announcement is over.
ANNOUNCE = """
local key, duration = KEYS[1], tonumber(ARGV[2])
for place = 3, #ARGV do
  redis.call('ZADD', key, now + duration, ARGV[place])
end
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
redis.call('PEXPIRE', key, duration)
"""

IS_GUARDED = """
local key, task = KEYS[1], ARGV[2]
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
return redis.call('ZSCORE', key, task) and 1 or 0
"""
