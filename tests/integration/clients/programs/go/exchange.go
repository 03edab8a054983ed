package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
)

// Bodies shorter than this are shown as text.
const short = 4096

type answer struct {
	Status   int               `json:"status"`
	Headers  map[string]string `json:"headers"`
	Length   int               `json:"length"`
	SHA256   string            `json:"sha256"`
	Text     *string           `json:"text"`
	Trailers map[string]string `json:"trailers"`
	Interim  []int             `json:"interim"`
}

func (c *client) inTurn(requests []request) ([]answer, error) {
	var answers []answer
	for _, one := range requests {
		got, err := c.whole(one)
		if err != nil {
			return nil, err
		}
		answers = append(answers, got)
	}
	return answers, nil
}

// early sends the body's second half when the answer's first line is there.
func (c *client) early(one request) ([]answer, error) {
	data := content(one.Body.Size)
	reader, writer := io.Pipe()
	go writer.Write(data[:len(data)/2])
	interim := []int{}
	response, err := c.send(one, reader, &interim)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	line, err := lines.ReadString('\n')
	if err != nil {
		return nil, err
	}
	go func() {
		writer.Write(data[len(data)/2:])
		writer.Close()
	}()
	rest, err := io.ReadAll(lines)
	return []answer{told(response, append([]byte(line), rest...), interim)}, err
}

func (c *client) poll(requests []request) ([]answer, error) {
	type outcome struct {
		answer answer
		err    error
	}
	first := make(chan outcome)
	go func() {
		got, err := c.whole(requests[0])
		first <- outcome{got, err}
	}()
	second, err := c.whole(requests[1])
	if err != nil {
		return nil, err
	}
	polled := <-first
	return []answer{polled.answer, second}, polled.err
}

func (c *client) stream(requests []request) ([]answer, error) {
	interim := []int{}
	response, err := c.send(requests[0], nil, &interim)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	text, err := lines.ReadString('\n')
	if err != nil {
		return nil, err
	}
	var others []answer
	for _, one := range requests[1:] {
		got, err := c.whole(one)
		if err != nil {
			return nil, err
		}
		others = append(others, got)
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil, err
		}
		text += line
	}
	rest, err := io.ReadAll(lines)
	first := told(response, append([]byte(text), rest...), interim)
	return append([]answer{first}, others...), err
}

// halfClose writes and reads by net/http, on a connection of its own.
func (c *client) halfClose(one request) ([]answer, error) {
	connection, err := net.Dial("tcp", strings.TrimPrefix(c.origin, "http://"))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	sent, err := http.NewRequest(one.Method, c.origin+one.Path, nil)
	if err != nil {
		return nil, err
	}
	if err := sent.Write(connection); err != nil {
		return nil, err
	}
	tcp, ok := connection.(*net.TCPConn)
	if !ok {
		return nil, errors.New("no TCP")
	}
	if err := tcp.CloseWrite(); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), sent)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(response.Body)
	return []answer{told(response, data, nil)}, err
}

// whole sends a request and reads all of its answer.
func (c *client) whole(one request) (answer, error) {
	var sent io.Reader
	if one.Body != nil {
		sent = strings.NewReader(string(content(one.Body.Size)))
		if one.Body.Chunked {
			// A reader that net/http does not know has no length.
			sent = io.MultiReader(sent)
		}
	}
	interim := []int{}
	response, err := c.send(one, sent, &interim)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return told(response, data, interim), err
}

func (c *client) send(one request, sent io.Reader, interim *[]int) (*http.Response, error) {
	made, err := http.NewRequest(one.Method, c.origin+one.Path, sent)
	if err != nil {
		return nil, err
	}
	for name, value := range one.Headers {
		made.Header.Set(name, value)
	}
	for name, value := range one.Trailers {
		if made.Trailer == nil {
			made.Trailer = http.Header{}
		}
		made.Trailer.Set(name, value)
	}
	return c.http.Do(made.WithContext(httptrace.WithClientTrace(made.Context(), c.trace(interim))))
}

func told(response *http.Response, data []byte, interim []int) answer {
	sum := sha256.Sum256(data)
	got := answer{
		Status:   response.StatusCode,
		Headers:  flat(response.Header),
		Length:   len(data),
		SHA256:   hex.EncodeToString(sum[:]),
		Trailers: flat(response.Trailer),
		Interim:  interim,
	}
	if len(data) < short {
		text := string(data)
		got.Text = &text
	}
	return got
}

func flat(fields http.Header) map[string]string {
	flattened := map[string]string{}
	for name, values := range fields {
		flattened[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	return flattened
}

// content is the bytes of every body of a size.
func content(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i % (64 * 1024) * 31 % 251)
	}
	return data
}
