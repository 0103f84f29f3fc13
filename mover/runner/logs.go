package runner

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"k8s.io/utils/clock"
)

const (
	// maxLogLine bounds a line of a worker's log, in bytes; the rest is cut off.
	maxLogLine = 64 << 10
	// The lines a second and the bytes a second of a worker's log that are passed on, each with what may
	// come at once, such as the stacks of a program that panics. A worker that was
	// taken over must not fill the node's disk, nor push other lines out of the log.
	logLines, logLinesAtOnce = 20, 2000
	logBytes, logBytesAtOnce = 64 << 10, 4 << 20
)

// forwardLog passes a worker's log on until its end, and returns the line that
// tells best how the worker died: the first that a dying Go program writes, or
// else the last of all.
func forwardLog(r io.Reader, log logr.Logger, c clock.PassiveClock) string {
	var (
		last, panicked string
		leftOut        int
	)

	some, much := rate.NewLimiter(logLines, logLinesAtOnce), rate.NewLimiter(logBytes, logBytesAtOnce)
	lines := bufio.NewReaderSize(r, maxLogLine)

	for {
		line, err := readLine(lines)
		if text := strings.TrimSpace(line); text != "" {
			last = text

			if panicked == "" && (strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ")) {
				panicked = text
			}

			if now := c.Now(); some.AllowN(now, 1) && much.AllowN(now, len(text)) {
				forwardLine(text, log)
			} else {
				leftOut++
			}
		}

		if err != nil {
			break
		}
	}

	if leftOut > 0 {
		log.Info("the worker wrote more than is passed on", "lines", leftOut)
	}

	if panicked != "" {
		return panicked
	}

	return last
}

// readLine returns the next line, cut off at the size of the reader's buffer.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	text := string(line)

	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}

	return text, err
}

func forwardLine(text string, log logr.Logger) {
	var fields map[string]any
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		log.Info("the worker wrote", "text", text)
		return
	}

	message, _ := fields["msg"].(string)
	level, _ := fields["level"].(string)

	delete(fields, "msg")
	delete(fields, "time")

	pairs := make([]any, 0, 2*len(fields))
	for k, v := range fields {
		pairs = append(pairs, k, v)
	}

	if level == "DEBUG" {
		log = log.V(1)
	}

	log.Info(message, pairs...)
}
