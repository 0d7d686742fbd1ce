// fdrelay passes one open file from one container to another over a unix socket.
//
//	fdrelay give ADDRESS PATH   opens PATH and gives it to whoever connects
//	fdrelay take ADDRESS        prints what the file that it is given holds
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	address := &net.UnixAddr{Name: args[1], Net: "unix"}
	if args[0] == "give" {
		return give(address, args[2])
	}
	return take(address)
}

func give(address *net.UnixAddr, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	listener, err := net.ListenUnix("unix", address)
	if err != nil {
		return err
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		return err
	}
	_, _, err = conn.WriteMsgUnix([]byte{0}, syscall.UnixRights(int(file.Fd())), nil)
	if err != nil {
		return err
	}
	// The file is gone from here, by name and by descriptor, before the other one reads it.
	os.Remove(path)
	file.Close()
	_, err = conn.Write([]byte{1})
	return err
}

func take(address *net.UnixAddr) error {
	var conn *net.UnixConn
	for {
		var err error
		if conn, err = net.DialUnix("unix", nil, address); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	space := make([]byte, syscall.CmsgSpace(4))
	if _, _, _, _, err := conn.ReadMsgUnix(make([]byte, 1), space); err != nil {
		return err
	}
	messages, err := syscall.ParseSocketControlMessage(space)
	if err != nil {
		return err
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, os.NewFile(uintptr(fds[0]), "given"))
	return err
}
