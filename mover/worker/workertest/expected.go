package workertest

import (
	"maps"
	"runtime"

	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// Expected is what comes of Try's attempts in a worker behind all its fences, with a
// volume that holds the files "secret" (mode 0000, of another user), "own",
// "victim" and "attributed" (of user 0), and has a sibling of that name with a "secret", too.
func Expected(v protocol.Verb) map[string]string {
	all := map[string]string{
		"read /etc/hostname":      "EACCES",
		"list /proc":              "EACCES",
		"read the cache's parent": "EACCES",
		"write the cache":         "ok",
		"rename in the cache":     "ok",
		"make a socket":           "EPERM",
		"make a unix socket":      "EPERM",
		"make a pair of sockets":  "EPERM",
		"signal the daemon":       "EPERM",
		"signal a thread of it":   "EPERM",
		"signal itself":           "ok",
		"limit the daemon":        "EPERM",
		"trace the daemon":        "EPERM",
		"open the daemon":         "EPERM",
		"fork":                    "EPERM",
		"clone3":                  "ENOSYS",
		"execute itself":          "EPERM",
		"unshare":                 "EPERM",
		"io_uring":                "EPERM",
		"bpf":                     "EPERM",
		"x32 getpid":              "EPERM",
	}

	if runtime.GOARCH != "amd64" {
		all["x32 getpid"] = "ENOSYS"
	}

	maps.Copy(all, expectedOfVolume(v))

	return all
}

func expectedOfVolume(v protocol.Verb) map[string]string {
	always := map[string]string{
		"read a file of another user":  "ok",
		"read the volume's parent":     "EACCES",
		"read a sibling of the volume": "EACCES",
		"make a handle":                "EPERM",
		"open a handle":                "EPERM",
		"make a device":                "EPERM",
	}

	maps.Copy(always, map[string]string{
		"link a sibling in":          "EACCES",
		"link out to a sibling":      "EACCES",
		"attack a sibling":           "ok", // The test looks what came of it.
		"chmod own":                  "EPERM",
		"chmod by descriptor link":   "EPERM",
		"chown own":                  "EPERM",
		"chown by O_PATH descriptor": "EPERM",
		"times by path":              "ESTALE",
		"times by O_PATH descriptor": "ESTALE",
		"set an attribute":           "EPERM",
		"lock own":                   "EPERM",
		"flags of own":               "EPERM",
		"watch the volume":           "EPERM",
		"set flags by path":          "EPERM",
		"read an attribute by path":  "EPERM",
	})

	// By Landlock, and by seccomp.
	writing, attributes, times, nothing, unseen := "EACCES", "EPERM", "ESTALE", "ok", "ok"
	if v == protocol.VerbRestore {
		writing, attributes, times, nothing, unseen = "ok", "ok", "ok", "EPERM", "ENOSYS"
	}

	for _, attempt := range []string{"write a new file", "write an old file", "truncate an old file", "remove a file"} {
		always[attempt] = writing
	}

	for _, attempt := range []string{"chmod by descriptor", "chown by descriptor"} {
		always[attempt] = attributes
	}

	always["times by descriptor"] = times
	always["open for nothing"], always["open for nothing, unseen"] = nothing, unseen

	return always
}
